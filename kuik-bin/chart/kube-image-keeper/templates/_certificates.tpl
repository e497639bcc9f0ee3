{{/* Source of the webhook's certificate. */}}

{{/* "self" or "cert-manager". Values of kuik 1.x, which supports only cert-manager, select it by setting an issuer. */}}
{{- define "kuik.certificates" -}}
{{- $webhook := .Values.controllers.webhook -}}
{{- if $webhook.certificates -}}{{ $webhook.certificates }}
{{- else if or $webhook.createCertificateIssuer $webhook.certificateIssuerRef.name -}}cert-manager
{{- else -}}self
{{- end -}}
{{- end -}}

{{/* "true" if the chart creates the issuer: its default name in 1.x is no other. */}}
{{- define "kuik.certificates.ownIssuer" -}}
{{- $webhook := .Values.controllers.webhook -}}
{{- and $webhook.createCertificateIssuer (has (toString $webhook.certificateIssuerRef.name) (list "" "<nil>" "kube-image-keeper-selfsigned-issuer")) -}}
{{- end -}}

{{- define "kuik.certificateSecret" -}}
{{ include "kuik.fullname" . }}-webhook-certificate
{{- end -}}

{{/* "true" if the webhook serves a certificate from cert-manager. */}}
{{- define "kuik.webhook.certificateMounted" -}}
{{ and (ne .Values.proxy.mode "containerd") (eq (include "kuik.certificates" .) "cert-manager") }}
{{- end -}}
