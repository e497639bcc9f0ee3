{{/* Which images are rewritten: the controllers keep the images that the webhook rewrites, so both are told the same. */}}
{{- define "kuik.rewriteArguments" -}}
{{- $webhook := .Values.controllers.webhook }}
- --proxy-port={{ .Values.proxy.hostPort }}
- --ignore-pull-policy-always={{ $webhook.ignorePullPolicyAlways }}
{{- range $webhook.ignoredNamespaces }}
- --ignore-namespaces={{ . }}
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
- --webhook-bind-address=:9443
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

{{/* Not in a namespace, so that two releases need two names. */}}
{{- define "kuik.webhook.name" -}}
{{ include "kuik.fullname" . }}-{{ .Release.Namespace | trunc 22 | trimSuffix "-" }}
{{- end -}}
