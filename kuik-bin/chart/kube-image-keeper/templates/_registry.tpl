{{/* Storage of the cache, and its flags. */}}

{{/* Storage kind: memory, volume, s3, gcs or azure. */}}
{{- define "kuik.storage" -}}
{{- $p := .Values.registry.persistence -}}
{{- if $p.s3 -}}s3
{{- else if $p.gcs -}}gcs
{{- else if $p.azure -}}azure
{{- else if $p.enabled -}}volume
{{- else -}}memory
{{- end -}}
{{- end -}}

{{/* "true" if several pods can share the storage. */}}
{{- define "kuik.storageIsShared" -}}
{{- if has (include "kuik.storage" .) (list "s3" "gcs" "azure") -}}true
{{- else if and .Values.registry.persistence.enabled (contains "ReadWriteMany" (toString .Values.registry.persistence.accessModes)) -}}true
{{- end -}}
{{- end -}}

{{/* PersistentVolumeClaim shared by all pods; other volumes have one claim for each pod. */}}
{{- define "kuik.registry.sharedClaim" -}}
{{- if and (eq (include "kuik.storage" .) "volume") (include "kuik.storageIsShared" .) -}}
{{ include "kuik.fullname" . }}-registry-pvc
{{- end -}}
{{- end -}}

{{/* StatefulSet, or Deployment if several replicas share their storage. */}}
{{- define "kuik.registry.workload" -}}
{{- if and (gt (int .Values.registry.replicas) 1) (include "kuik.storageIsShared" .) -}}Deployment{{- else -}}StatefulSet{{- end -}}
{{- end -}}

{{/* Secret with the bucket credentials: an existing one, or the chart's own with the keys from the values. */}}
{{- define "kuik.bucketSecret" -}}
{{- $p := .Values.registry.persistence -}}
{{- if eq (include "kuik.storage" .) "s3" -}}
{{- if $p.s3ExistingSecret -}}{{ $p.s3ExistingSecret }}
{{- else if $p.s3.accesskey -}}{{ include "kuik.fullname" . }}-bucket
{{- end -}}
{{- else if eq (include "kuik.storage" .) "azure" -}}
{{- if $p.azureExistingSecret -}}{{ $p.azureExistingSecret }}
{{- else if $p.azure.accountkey -}}{{ include "kuik.fullname" . }}-bucket
{{- end -}}
{{- else if eq (include "kuik.storage" .) "gcs" -}}{{ $p.gcsExistingSecret }}
{{- end -}}
{{- end -}}

{{- define "kuik.s3.endpoint" -}}
{{- $s3 := .Values.registry.persistence.s3 -}}
{{- if contains "://" (toString $s3.regionendpoint) -}}
{{- $s3.regionendpoint -}}
{{- else if $s3.regionendpoint -}}
{{- /* The format that Docker's registry accepts: without a scheme. */ -}}
{{- printf "%s://%s" (eq (toString $s3.secure) "false" | ternary "http" "https") $s3.regionendpoint -}}
{{- end -}}
{{- end -}}

{{/* Forward proxies of kuik-registry: those of the node proxies or the controllers, which fetch images in kuik 1.x. */}}
{{- define "kuik.registry.forwardProxies" -}}
{{- $names := list "HTTP_PROXY" "HTTPS_PROXY" "ALL_PROXY" "NO_PROXY" -}}
{{- $set := dict -}}
{{- range .Values.registry.env }}{{- $_ := set $set (upper .name) true }}{{- end -}}
{{- range $environment := list .Values.proxy.env .Values.controllers.env -}}
{{- range $environment -}}
{{- if and (has (upper .name) $names) (not (hasKey $set (upper .name))) -}}
{{- $_ := set $set (upper .name) true -}}
{{- include "kuik.environment" (list .) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "kuik.prefix" -}}
{{- with trimAll "/" (toString (default "" .)) -}}/{{ . }}{{- end -}}
{{- end -}}

{{/* Quantity as text. Helm parses whole numbers in a values file as floats. */}}
{{- define "kuik.quantity" -}}
{{- kindIs "float64" . | ternary (int64 .) . -}}
{{- end -}}

{{/* Quantity in KiB; empty if it is not whole Ki, Mi, Gi, Ti, Pi, M, G, T or bytes. */}}
{{- define "kuik.kibibytes" -}}
{{- $quantity := include "kuik.quantity" . -}}
{{- $unit := regexFind "[A-Za-z]*$" $quantity -}}
{{- $kibibytes := get (dict "Ki" 1 "Mi" 1024 "Gi" 1048576 "Ti" 1073741824 "Pi" 1099511627776 "M" 976 "G" 976562 "T" 976562500) $unit -}}
{{- if regexMatch "^[0-9]{8,}$" $quantity -}}
{{- div (int64 $quantity) 1024 -}}
{{- else if and $kibibytes (regexMatch "^[0-9]+$" (trimSuffix $unit $quantity)) -}}
{{- mul (int64 (trimSuffix $unit $quantity)) $kibibytes -}}
{{- end -}}
{{- end -}}

{{/* 90 % of a volume: a full disk would accept neither uploads nor metadata. Call with (list VALUE QUANTITY). */}}
{{- define "kuik.registry.mostOf" -}}
{{- $kibibytes := include "kuik.kibibytes" (index . 1) -}}
{{- if not $kibibytes -}}
{{- fail (printf "%s is %q, from which no size limit of the cache can be derived: use whole Mi, Gi, Ti, Pi, M, G or T, or set registry.maxSize" (index . 0) (include "kuik.quantity" (index . 1))) -}}
{{- end -}}
{{- printf "%dMi" (div (mul (int64 $kibibytes) 9) 10240) -}}
{{- end -}}

{{/* Size limit of kuik-registry; empty for none. */}}
{{- define "kuik.registry.maxSize" -}}
{{- $p := .Values.registry.persistence -}}
{{- $storage := include "kuik.storage" . -}}
{{- if ne .Values.registry.kind "kuik" -}}
{{- else if .Values.registry.maxSize -}}
{{- include "kuik.quantity" .Values.registry.maxSize -}}
{{- else if eq $storage "volume" -}}
{{- include "kuik.registry.mostOf" (list "registry.persistence.size" $p.size) -}}
{{- else if eq $storage "memory" -}}
{{- with $p.emptyDirSizeLimit -}}
{{- include "kuik.registry.mostOf" (list "registry.persistence.emptyDirSizeLimit" .) -}}
{{- end -}}
{{- else -}}
{{- with $p.bucketMaxSize }}{{- include "kuik.quantity" . -}}{{- end -}}
{{- end -}}
{{- end -}}

{{/* Size limit of the emptyDir with the cache, above that of kuik-registry: kubelet evicts a pod that exceeds it. */}}
{{- define "kuik.registry.emptyDirSizeLimit" -}}
{{- $limit := .Values.registry.persistence.emptyDirSizeLimit -}}
{{- $used := include "kuik.registry.maxSize" . -}}
{{- $kibibytes := include "kuik.kibibytes" $used -}}
{{- $needed := div (mul (int64 $kibibytes) 10) 9 -}}
{{- if and $used (not $kibibytes) -}}
{{- /* A fraction of a unit, which cannot be compared. */ -}}
{{- else if and $limit (gt $needed (int64 (include "kuik.kibibytes" $limit))) -}}
{{- printf "%dMi" (add (div $needed 1024) 1) -}}
{{- else if $limit -}}
{{- include "kuik.quantity" $limit -}}
{{- end -}}
{{- end -}}

{{/* Storage flags of kuik-registry. */}}
{{- define "kuik.registry.storageArguments" -}}
{{- $p := .Values.registry.persistence -}}
{{- $storage := include "kuik.storage" . -}}
{{- if eq $storage "s3" }}
- --storage=s3://{{ $p.s3.bucket }}{{ include "kuik.prefix" $p.s3.rootdirectory }}
{{- with include "kuik.s3.endpoint" . }}
- --storage-endpoint={{ . }}
{{- if hasPrefix "http://" . }}
- --storage-allow-http
{{- end }}
{{- end }}
{{- with $p.s3.region }}
- --storage-region={{ . }}
{{- end }}
{{- if hasKey $p.s3 "forcepathstyle" }}
- --storage-path-style={{ $p.s3.forcepathstyle }}
{{- end }}
{{- else if eq $storage "gcs" }}
- --storage=gs://{{ $p.gcs.bucket }}{{ include "kuik.prefix" $p.gcs.rootdirectory }}
{{- else if eq $storage "azure" }}
- --storage=az://{{ $p.azure.container }}{{ include "kuik.prefix" $p.azure.rootdirectory }}
{{- else }}
- --storage=file:///var/lib/registry
{{- end }}
{{- if has $storage (list "s3" "gcs" "azure") }}
- --scratch-dir=/var/lib/registry
{{- if not $p.disableS3Redirections }}
- --storage-redirects
{{- end }}
{{- end }}
{{- end -}}

{{/* Bucket credentials as environment variables of kuik-registry or Docker's registry. */}}
{{- define "kuik.registry.environment" -}}
{{- $p := .Values.registry.persistence -}}
{{- $docker := eq .Values.registry.kind "distribution" -}}
{{- $storage := include "kuik.storage" . -}}
{{- $secret := include "kuik.bucketSecret" . -}}
{{- if and (eq $storage "s3") $secret }}
- name: {{ $docker | ternary "REGISTRY_STORAGE_S3_ACCESSKEY" "AWS_ACCESS_KEY_ID" }}
  valueFrom: {secretKeyRef: {name: {{ $secret }}, key: accessKey}}
- name: {{ $docker | ternary "REGISTRY_STORAGE_S3_SECRETKEY" "AWS_SECRET_ACCESS_KEY" }}
  valueFrom: {secretKeyRef: {name: {{ $secret }}, key: secretKey}}
{{- end }}
{{- if and (eq $storage "s3") (not $docker) (eq (toString $p.s3.encrypt) "true") }}
- name: AWS_SERVER_SIDE_ENCRYPTION
  value: {{ empty $p.s3.keyid | ternary "AES256" "aws:kms" | quote }}
{{- with $p.s3.keyid }}
- name: AWS_SSE_KMS_KEY_ID
  value: {{ . | quote }}
{{- end }}
{{- end }}
{{- if eq $storage "azure" }}
- name: {{ $docker | ternary "REGISTRY_STORAGE_AZURE_ACCOUNTNAME" "AZURE_STORAGE_ACCOUNT_NAME" }}
{{- if $p.azure.accountname }}
  value: {{ $p.azure.accountname | quote }}
{{- else }}
  # A Secret of kuik 1.x has both, under these keys.
  valueFrom: {secretKeyRef: {name: {{ $secret }}, key: accountname}}
{{- end }}
{{- if $secret }}
- name: {{ $docker | ternary "REGISTRY_STORAGE_AZURE_ACCOUNTKEY" "AZURE_STORAGE_ACCOUNT_KEY" }}
  valueFrom: {secretKeyRef: {name: {{ $secret }}, key: {{ empty $p.azure.accountname | ternary "accountkey" "accountKey" }}}}
{{- end }}
{{- else if and (eq $storage "gcs") $secret }}
- name: {{ $docker | ternary "REGISTRY_STORAGE_GCS_KEYFILE" "GOOGLE_APPLICATION_CREDENTIALS" }}
  value: /etc/kuik/gcs/credentials.json
{{- end }}
{{- end -}}

{{/* Complete configuration of Docker's registry, as environment variables. */}}
{{- define "kuik.distribution.environment" -}}
{{- include "kuik.ownEnvironment" (list (include "kuik.distribution.configuration" .) .Values.registry.env) }}
{{- with .Values.registry.env }}
{{ include "kuik.environment" . | trim }}
{{- end }}
{{- end -}}

{{- define "kuik.distribution.configuration" -}}
{{- $p := .Values.registry.persistence -}}
{{- $storage := include "kuik.storage" . -}}
- name: REGISTRY_HTTP_ADDR
  value: ":5000"
- name: REGISTRY_HTTP_DEBUG_ADDR
  value: ":5001"
- name: REGISTRY_HTTP_DEBUG_PROMETHEUS_ENABLED
  value: "true"
- name: REGISTRY_LOG_LEVEL
  value: {{ include "kuik.log" (list . "registry") }}
- name: REGISTRY_STORAGE_DELETE_ENABLED
  value: "true"
- name: REGISTRY_VALIDATION_DISABLED
  value: "true"
{{- if include "kuik.registry.tls" . }}
- name: REGISTRY_HTTP_TLS_CERTIFICATE
  value: /etc/kuik/certificate/tls.crt
- name: REGISTRY_HTTP_TLS_KEY
  value: /etc/kuik/certificate/tls.key
{{- end }}
{{- if .Values.registry.httpSecret }}
- name: REGISTRY_HTTP_SECRET
  valueFrom: {secretKeyRef: {name: {{ include "kuik.fullname" . }}-registry-http, key: secret}}
{{- end }}
{{- if has $storage (list "s3" "gcs" "azure") }}
- name: REGISTRY_STORAGE
  value: {{ $storage }}
- name: REGISTRY_STORAGE_REDIRECT_DISABLE
  value: {{ $p.disableS3Redirections | quote }}
{{- else }}
- name: REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY
  value: /var/lib/registry
{{- end }}
{{- $settings := omit (index $p (has $storage (list "s3" "gcs" "azure") | ternary $storage "s3")) "accesskey" "secretkey" "accountkey" "accountname" }}
{{- if has $storage (list "s3" "gcs" "azure") }}
{{- $settings = mergeOverwrite (dict) $settings }}
{{- if and (eq $storage "s3") (include "kuik.s3.endpoint" .) }}
{{- $_ := set $settings "regionendpoint" (include "kuik.s3.endpoint" .) }}
{{- if not (hasKey $settings "region") }}{{- $_ := set $settings "region" "us-east-1" }}{{- end }}
{{- end }}
{{- range $key := keys $settings | sortAlpha }}
- name: REGISTRY_STORAGE_{{ upper $storage }}_{{ upper $key }}
  value: {{ get $settings $key | toString | quote }}
{{- end }}
{{- end }}
{{- with include "kuik.registry.environment" . | trim }}
{{ . }}
{{- end }}
{{- end -}}

{{- define "kuik.gcsMount" -}}
{{- if and (eq (include "kuik.storage" .) "gcs") (include "kuik.bucketSecret" .) }}
- {name: gcs, mountPath: /etc/kuik/gcs, readOnly: true}
{{- end }}
{{- end -}}
