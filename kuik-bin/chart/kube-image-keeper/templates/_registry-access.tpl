{{/* TLS of the cache, and how its clients access it. */}}

{{/* "true" if the cache is served over TLS. */}}
{{- define "kuik.registry.tls" -}}
{{- with .Values.registry.tls -}}
{{- if or .secretName (default dict .issuerRef).name -}}true{{- end -}}
{{- end -}}
{{- end -}}

{{- define "kuik.registry.tlsSecret" -}}
{{- default (printf "%s-registry-certificate" (include "kuik.fullname" .)) .Values.registry.tls.secretName -}}
{{- end -}}

{{/* Address of the cache at a Service: HOST:PORT over plain HTTP, or a URL. */}}
{{- define "kuik.registry.endpoint" -}}
{{- $root := index . 0 -}}
{{- if include "kuik.registry.tls" $root }}https://{{ end -}}
{{ include "kuik.fullname" $root }}-{{ index . 1 }}:5000
{{- end -}}

{{/* "true" if the clients of the cache, here the proxies, have its token. */}}
{{- define "kuik.registry.readToken" -}}
{{- if and .Values.registry.protectReads (eq .Values.registry.kind "kuik") -}}true{{- end -}}
{{- end -}}

{{- define "kuik.registry.clientMounts" -}}
{{- $root := index . 0 -}}
{{- if include "kuik.registry.tls" $root }}
- {name: registry-authority, mountPath: /etc/kuik/registry-authority, readOnly: true}
{{- end }}
{{- if and (eq (index . 1) "proxy") (include "kuik.registry.readToken" $root) }}
- {name: registry-token, mountPath: /etc/kuik/registry-token, readOnly: true}
{{- end }}
{{- end -}}

{{- define "kuik.registry.clientVolumes" -}}
{{- $root := index . 0 -}}
{{- if include "kuik.registry.tls" $root }}
# Without the private key.
- name: registry-authority
  secret:
    secretName: {{ include "kuik.registry.tlsSecret" $root }}
    items: [{key: ca.crt, path: ca.crt}]
{{- end }}
{{- if and (eq (index . 1) "proxy") (include "kuik.registry.readToken" $root) }}
- name: registry-token
  secret:
    secretName: {{ $root.Values.registry.tokenSecret }}
{{- end }}
{{- end -}}

{{- define "kuik.registry.clientArguments" -}}
{{- $root := index . 0 -}}
{{- if include "kuik.registry.tls" $root }}
- --registry-certificate-authority=/etc/kuik/registry-authority/ca.crt
{{- end }}
{{- if and (eq (index . 1) "proxy") (include "kuik.registry.readToken" $root) }}
- --registry-credentials-file=/etc/kuik/registry-token/token
{{- end }}
{{- end -}}
