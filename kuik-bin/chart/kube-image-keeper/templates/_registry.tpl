{{/* Where the cache keeps its images, and how it is told. */}}

{{/* One of memory, volume, s3, gcs and azure. */}}
{{- define "kuik.storage" -}}
{{- $p := .Values.registry.persistence -}}
{{- if or $p.s3 .Values.minio.enabled -}}s3
{{- else if $p.gcs -}}gcs
{{- else if $p.azure -}}azure
{{- else if $p.enabled -}}volume
{{- else -}}memory
{{- end -}}
{{- end -}}

{{/* Whether several pods can keep images in the same place. */}}
{{- define "kuik.storageIsShared" -}}
{{- if has (include "kuik.storage" .) (list "s3" "gcs" "azure") -}}true
{{- else if and .Values.registry.persistence.enabled (contains "ReadWriteMany" (toString .Values.registry.persistence.accessModes)) -}}true
{{- end -}}
{{- end -}}

{{/* The claim of a volume that several pods may mount; other volumes have one for each pod. */}}
{{- define "kuik.registry.sharedClaim" -}}
{{- if and (eq (include "kuik.storage" .) "volume") (include "kuik.storageIsShared" .) -}}
{{ include "kuik.fullname" . }}-registry-pvc
{{- end -}}
{{- end -}}

{{/* A StatefulSet unless there are several that share their storage. */}}
{{- define "kuik.registry.workload" -}}
{{- if and (gt (int .Values.registry.replicas) 1) (include "kuik.storageIsShared" .) -}}Deployment{{- else -}}StatefulSet{{- end -}}
{{- end -}}

{{/* A Secret of the chart's own has the keys that the values state. */}}
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
{{- /* As Docker's registry takes it. */ -}}
{{- printf "%s://%s" (eq (toString $s3.secure) "false" | ternary "http" "https") $s3.regionendpoint -}}
{{- else if .Values.minio.enabled -}}
{{- printf "http://%s:%d" .Values.minio.fullnameOverride (int .Values.minio.port) -}}
{{- end -}}
{{- end -}}

{{- define "kuik.prefix" -}}
{{- with trimAll "/" (toString (default "" .)) -}}/{{ . }}{{- end -}}
{{- end -}}

{{/* A quantity as text. Helm reads whole numbers of a values file as floating ones. */}}
{{- define "kuik.quantity" -}}
{{- kindIs "float64" . | ternary (int64 .) . -}}
{{- end -}}

{{/* Nine tenths of the volume: a full disk would take no upload and no note of what is on it. */}}
{{- define "kuik.registry.maxSize" -}}
{{- $size := include "kuik.quantity" .Values.registry.persistence.size -}}
{{- if .Values.registry.maxSize -}}
{{- include "kuik.quantity" .Values.registry.maxSize -}}
{{- else if eq (include "kuik.storage" .) "volume" -}}
{{- $unit := regexFind "[A-Za-z]*$" $size -}}
{{- $kibibytes := get (dict "Mi" 1024 "Gi" 1048576 "Ti" 1073741824 "Pi" 1099511627776 "M" 976 "G" 976562 "T" 976562500) $unit -}}
{{- if regexMatch "^[0-9]{8,}$" $size -}}
{{- printf "%dMi" (div (mul (int64 $size) 9) 10485760) -}}
{{- else if not (and $kibibytes (regexMatch "^[0-9]+$" (trimSuffix $unit $size))) -}}
{{- fail (printf "registry.persistence.size is %q, of which the cache cannot tell how much it may keep: write whole Mi, Gi, Ti, Pi, M, G or T, or set registry.maxSize" $size) -}}
{{- else -}}
{{- printf "%dMi" (div (mul (int64 (trimSuffix $unit $size)) $kibibytes 9) 10240) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The flags that say where content is kept. */}}
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

{{/* What opens the bucket, as environment: of kuik-registry, or of Docker's registry. */}}
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
{{- else if eq $storage "azure" }}
- name: {{ $docker | ternary "REGISTRY_STORAGE_AZURE_ACCOUNTNAME" "AZURE_STORAGE_ACCOUNT_NAME" }}
  value: {{ $p.azure.accountname | quote }}
{{- if $secret }}
- name: {{ $docker | ternary "REGISTRY_STORAGE_AZURE_ACCOUNTKEY" "AZURE_STORAGE_ACCOUNT_KEY" }}
  valueFrom: {secretKeyRef: {name: {{ $secret }}, key: accountKey}}
{{- end }}
{{- else if and (eq $storage "gcs") $secret }}
- name: {{ $docker | ternary "REGISTRY_STORAGE_GCS_KEYFILE" "GOOGLE_APPLICATION_CREDENTIALS" }}
  value: /etc/kuik/gcs/credentials.json
{{- end }}
{{- end -}}

{{/* All of the configuration of Docker's registry. */}}
{{- define "kuik.distribution.environment" -}}
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
{{- end -}}
