{{/* Addresses of the proxy on its node. */}}

{{/* HOST of HOST:PORT for an address: in brackets if it is IPv6. */}}
{{- define "kuik.host" -}}
{{- if contains ":" . -}}[{{ . }}]{{- else -}}{{ . }}{{- end -}}
{{- end -}}

{{/* Listen address in the host network: both loopback addresses for one of them. Call with (list ADDRESS PORT). */}}
{{- define "kuik.proxy.hostAddress" -}}
{{- $address := toString (index . 0) -}}
{{- if has $address (list "127.0.0.1" "::1" "localhost") -}}localhost
{{- else -}}{{ include "kuik.host" $address }}
{{- end -}}
:{{ int (index . 1) }}
{{- end -}}

{{- define "kuik.proxy.metricsHostIp" -}}
{{- default .Values.proxy.hostIp .Values.proxy.metricsHostIp -}}
{{- end -}}

{{- define "kuik.proxy.metricsAddress" -}}
{{- if .Values.proxy.hostNetwork -}}
{{- include "kuik.proxy.hostAddress" (list (include "kuik.proxy.metricsHostIp" .) .Values.proxy.metricsPort) -}}
{{- else -}}
:{{ int .Values.proxy.metricsPort }}
{{- end -}}
{{- end -}}

{{/* Host of the probes, if it is not the address of the pod. */}}
{{- define "kuik.proxy.probeHost" -}}
{{- if .Values.proxy.hostNetwork -}}
{{- $address := include "kuik.proxy.metricsHostIp" . -}}
{{- if eq $address "localhost" -}}127.0.0.1
{{- else if not (has $address (list "" "0.0.0.0" "::")) -}}{{ $address }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* URL at which containerd reaches the proxy on its node. */}}
{{- define "kuik.proxy.endpoint" -}}
{{- $address := toString .Values.proxy.hostIp -}}
{{- if has $address (list "" "0.0.0.0" "localhost") }}{{ $address = "127.0.0.1" }}{{ end -}}
{{- if eq $address "::" }}{{ $address = "::1" }}{{ end -}}
http://{{ include "kuik.host" $address }}:{{ int .Values.proxy.hostPort }}
{{- end -}}
