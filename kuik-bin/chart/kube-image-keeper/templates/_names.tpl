{{/* Names and labels of all objects. */}}

{{- define "kuik.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/*
Truncated to 43 characters, so that the name of the StatefulSet and a hash fit in a label of its pods. kuik 1.x truncates to
63, and its StatefulSet cannot create pods if the name is longer than 43.
*/}}
{{- define "kuik.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 43 | trimSuffix "-" -}}
{{- else if contains (include "kuik.name" .) .Release.Name -}}
{{- .Release.Name | trunc 43 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "kuik.name" .) | trunc 43 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "kuik.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{ include "kuik.selector" . }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Selector labels of every pod of the release; each component adds its own. */}}
{{- define "kuik.selector" -}}
app.kubernetes.io/name: {{ include "kuik.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{- define "kuik.controllers.serviceAccount" -}}
{{- default (printf "%s-controllers" (include "kuik.fullname" .)) .Values.serviceAccount.name -}}
{{- end -}}

{{- define "kuik.registry.serviceAccount" -}}
{{- default (printf "%s-registry" (include "kuik.fullname" .)) .Values.registry.serviceAccount.name -}}
{{- end -}}

{{/* Image of a component. Call with (list $ COMPONENT). */}}
{{- define "kuik.image" -}}
{{- $root := index . 0 -}}
{{- $own := (index $root.Values (index . 1)).image | default dict -}}
{{- $repository := default $root.Values.image.repository $own.repository -}}
{{- $tag := default (default $root.Chart.AppVersion $root.Values.image.tag) $own.tag -}}
{{- $digest := default $root.Values.image.digest $own.digest -}}
{{- if and (eq (index . 1) "registry") (eq $root.Values.registry.kind "distribution") -}}
{{- $repository = default "docker.io/library/registry" $own.repository -}}
{{- $tag = default "2.8.3" $own.tag -}}
{{- $digest = $own.digest -}}
{{- end -}}
{{- printf "%s:%s" $repository (toString $tag) -}}
{{- with $digest }}@{{ . }}{{ end -}}
{{- end -}}

{{- define "kuik.pullPolicy" -}}
{{- $root := index . 0 -}}
{{- default $root.Values.image.pullPolicy ((index $root.Values (index . 1)).image | default dict).pullPolicy -}}
{{- end -}}
