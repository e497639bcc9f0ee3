{{/* Where the webhook's certificate comes from. */}}

{{/* self or cert-manager. Values of a chart that knew cert-manager alone ask for it by its issuer. */}}
{{- define "kuik.certificates" -}}
{{- $webhook := .Values.controllers.webhook -}}
{{- if $webhook.certificates -}}{{ $webhook.certificates }}
{{- else if or $webhook.createCertificateIssuer $webhook.certificateIssuerRef.name -}}cert-manager
{{- else -}}self
{{- end -}}
{{- end -}}

{{- define "kuik.certificateSecret" -}}
{{ include "kuik.fullname" . }}-webhook-certificate
{{- end -}}

{{/* true where cert-manager writes a certificate that the webhook serves. */}}
{{- define "kuik.webhook.certificateMounted" -}}
{{ and (ne .Values.proxy.mode "containerd") (eq (include "kuik.certificates" .) "cert-manager") }}
{{- end -}}
