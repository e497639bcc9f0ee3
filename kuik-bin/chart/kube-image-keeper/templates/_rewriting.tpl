{{/* Flags that select the images to rewrite. The controllers cache what the webhook rewrites, so both get the same flags. */}}
{{- define "kuik.rewriteArguments" -}}
{{- $webhook := .Values.controllers.webhook }}
- --proxy-port={{ .Values.proxy.hostPort }}
- --ignore-pull-policy-always={{ $webhook.ignorePullPolicyAlways }}
- --ignore-node-critical-pods={{ ne (toString $webhook.ignoreNodeCriticalPods) "false" }}
{{- range $webhook.ignoredNamespaces }}
- --ignore-namespaces={{ include "kuik.quantity" . }}
{{- end }}
{{- range $webhook.ignoredImages }}
- {{ printf "--ignore-images=%s" . | quote }}
{{- end }}
{{- range $webhook.acceptedImages }}
- {{ printf "--accept-images=%s" . | quote }}
{{- end }}
{{- with $webhook.objectSelector.matchExpressions }}
- {{ printf "--object-selector=%s" (dict "matchExpressions" . | toJson) | quote }}
{{- end }}
{{- end -}}

{{- define "kuik.webhook.arguments" -}}
{{- if eq .Values.proxy.mode "containerd" }}
- --webhook-bind-address=0
{{- else }}
- --webhook-bind-address=:{{ .Values.controllers.webhook.port }}
{{- if eq (include "kuik.certificates" .) "cert-manager" }}
- --tls-cert-file=/etc/kuik/certificate/tls.crt
- --tls-private-key-file=/etc/kuik/certificate/tls.key
{{- else }}
- --certificate-secret={{ include "kuik.certificateSecret" . }}
- --webhook-configuration={{ include "kuik.webhook.name" . }}
- --webhook-service={{ include "kuik.fullname" . }}-webhook
{{- end }}
{{- end }}
{{- end -}}

{{/* Cluster-scoped, so the name includes the namespace to be unique per release. */}}
{{- define "kuik.webhook.name" -}}
{{ include "kuik.fullname" . }}-{{ .Release.Namespace | trunc 22 | trimSuffix "-" }}
{{- end -}}
