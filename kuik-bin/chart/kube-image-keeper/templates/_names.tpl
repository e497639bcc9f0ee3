{{/* What objects are called, and how they are found. */}}

{{- define "kuik.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* Room is left for the longest suffix, `-controllers`, and a pod's own. */}}
{{- define "kuik.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "kuik.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "kuik.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "kuik.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{ include "kuik.selector" . }}
{{- end -}}

{{/* What selects every pod of the release; each component adds its own name. */}}
{{- define "kuik.selector" -}}
app.kubernetes.io/name: {{ include "kuik.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "kuik.controllers.serviceAccount" -}}
{{- default (printf "%s-controllers" (include "kuik.fullname" .)) .Values.serviceAccount.name -}}
{{- end -}}

{{- define "kuik.registry.serviceAccount" -}}
{{- default (printf "%s-registry" (include "kuik.fullname" .)) .Values.registry.serviceAccount.name -}}
{{- end -}}

{{/* Call with (list $ COMPONENT): the image that it runs. */}}
{{- define "kuik.image" -}}
{{- $root := index . 0 -}}
{{- $own := (index $root.Values (index . 1)).image | default dict -}}
{{- $repository := default $root.Values.image.repository $own.repository -}}
{{- $tag := default (default $root.Chart.AppVersion $root.Values.image.tag) $own.tag -}}
{{- if and (eq (index . 1) "registry") (eq $root.Values.registry.kind "distribution") -}}
{{- $repository = default "docker.io/library/registry" $own.repository -}}
{{- $tag = default "2.8.3" $own.tag -}}
{{- end -}}
{{- printf "%s:%s" $repository (toString $tag) -}}
{{- end -}}

{{- define "kuik.pullPolicy" -}}
{{- $root := index . 0 -}}
{{- default $root.Values.image.pullPolicy ((index $root.Values (index . 1)).image | default dict).pullPolicy -}}
{{- end -}}
