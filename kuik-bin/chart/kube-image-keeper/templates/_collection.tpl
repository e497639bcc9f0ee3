{{/* Garbage collection of Docker's registry: before a pod of it serves, so that there is no writer meanwhile. */}}

{{/* Cron schedule; empty for a registry that collects by itself, or whose content ends with its pod. */}}
{{- define "kuik.collection.schedule" -}}
{{- if and (eq .Values.registry.kind "distribution") (ne (include "kuik.storage" .) "memory") -}}
{{- default .Values.registry.garbageCollection.schedule .Values.registry.garbageCollectionSchedule -}}
{{- end -}}
{{- end -}}

{{/* Name of the CronJob and of its objects: at most 52 characters. */}}
{{- define "kuik.collection.name" -}}
{{ include "kuik.fullname" . | trunc 40 | trimSuffix "-" }}-registry-gc
{{- end -}}

{{/* Seconds of one attempt: the collection, plus stopping and starting the registry. */}}
{{- define "kuik.collection.deadline" -}}
{{- add (int64 .Values.registry.garbageCollection.activeDeadlineSeconds) 1800 -}}
{{- end -}}

{{/*
"true" if `--delete-untagged` of this version of Docker's registry keeps the platforms of an index, which have no tags:
the releases of version 3. Version 2 deletes them, and so do the first previews of version 3.
*/}}
{{- define "kuik.collection.keepsChildren" -}}
{{- $tag := default "2.8.3" .Values.registry.image.tag | toString -}}
{{- if regexMatch "^v?3([.][0-9]+)*(-alpine)?(@sha256:[0-9a-f]{64})?$" $tag -}}true{{- end -}}
{{- end -}}

{{/*
Init container of the registry. It collects if the CronJob requested it, and lets the registry start in any case: after a
failure, a timeout, and also if it is killed itself, since kubelet then runs it again in the same pod.
*/}}
{{- define "kuik.collection.container" -}}
{{- $gc := .Values.registry.garbageCollection -}}
- name: collect-garbage
  image: {{ include "kuik.image" (list . "registry") | quote }}
  imagePullPolicy: {{ include "kuik.pullPolicy" (list . "registry") }}
  command:
    - sh
    - -c
    - |
      end() { echo "garbage collection: $1"; printf %s "$2" >/dev/termination-log; exit 0; }
      [ "$COLLECT_GARBAGE" = true ] || end "not requested" ok
      ! [ -e /collection/attempted ] || end "the first attempt was killed" failed
      : >/collection/attempted || end "cannot write to /collection" failed
      {{- if eq (include "kuik.registry.workload" .) "Deployment" }}
      # The replica before this one got its signal to end, and ends without waiting for requests.
      sleep 30
      {{- end }}
      for config in /etc/distribution/config.yml /etc/docker/registry/config.yml; do
          [ ! -f "$config" ] || break
      done
      timeout {{ int64 $gc.activeDeadlineSeconds }} registry garbage-collect {{ if $gc.deleteUntagged }}--delete-untagged {{ end }}"$config" ||
          end "failed with exit code $?" failed
      end done ok
  env:
    {{- include "kuik.distribution.environment" . | trim | nindent 4 }}
    - name: COLLECT_GARBAGE
      valueFrom: {configMapKeyRef: {name: {{ include "kuik.collection.name" . }}, key: collect, optional: true}}
  resources:
    {{- default dict .Values.registry.resources | toYaml | nindent 4 }}
  securityContext:
    {{- include "kuik.securityContext" (list . "registry") | nindent 4 }}
  volumeMounts:
    - {name: data, mountPath: /var/lib/registry}
    - {name: tmp, mountPath: /tmp}
    - {name: collection, mountPath: /collection}
    {{- with include "kuik.gcsMount" . | trim }}{{ . | nindent 4 }}{{ end }}
    {{- with include "kuik.authoritiesMount" . | trim }}{{ . | nindent 4 }}{{ end }}
    {{- with include "kuik.extraVolumeMounts" (list . "registry") | trim }}{{ . | nindent 4 }}{{ end }}
{{- end -}}

{{/* A step of the job. Call with (list $ NAME COMMAND). */}}
{{- define "kuik.collection.step" -}}
{{- $gc := (index . 0).Values.registry.garbageCollection -}}
- name: {{ index . 1 }}
  image: {{ printf "%s:%s" $gc.image.repository (toString $gc.image.tag) | quote }}
  imagePullPolicy: {{ $gc.image.pullPolicy }}
  command: {{ toJson (index . 2) }}
  env:
    - name: POD_NAME
      valueFrom: {fieldRef: {fieldPath: metadata.name}}
  resources:
    {{- default dict $gc.resources | toYaml | nindent 4 }}
  securityContext:
    {{- include "kuik.leastPrivilege" $gc.securityContext | nindent 4 }}
{{- end -}}

{{/* Values for Docker's registry that are set and have no effect on kuik-registry. Their defaults are those of values.yaml. */}}
{{- define "kuik.unusedValues" -}}
{{- if eq .Values.registry.kind "kuik" -}}
{{- $unused := list -}}
{{- $quota := dict "cpu" "10m" "memory" "10Mi" -}}
{{- $limit := dict "cpu" "1" "memory" "512Mi" -}}
{{- $image := dict "repository" "registry.k8s.io/kubectl" "pullPolicy" "IfNotPresent" "tag" "v1.37.2" -}}
{{- $defaults := dict "schedule" "0 0 * * 0" "deleteUntagged" "false" "backoffLimit" "3" "activeDeadlineSeconds" "3600" -}}
{{- $_ := set $defaults "resources" (toString (toJson (dict "requests" $quota "limits" $limit))) -}}
{{- $_ := set $defaults "image" (toString (toJson $image)) -}}
{{- range $key, $value := .Values.registry.garbageCollection -}}
{{- $text := kindIs "map" $value | ternary (toJson $value) (include "kuik.quantity" $value) -}}
{{- if kindIs "invalid" $value -}}
{{- else if hasKey $defaults $key -}}
{{- if ne $text (get $defaults $key) }}{{- $unused = append $unused (printf "registry.garbageCollection.%s" $key) }}{{- end -}}
{{- else if or $value (hasSuffix "ecurityContext" $key) -}}
{{- $unused = append $unused (printf "registry.garbageCollection.%s" $key) -}}
{{- end -}}
{{- end -}}
{{- if .Values.registry.garbageCollectionSchedule }}{{- $unused = append $unused "registry.garbageCollectionSchedule" }}{{- end -}}
{{- if .Values.registry.httpSecret }}{{- $unused = append $unused "registry.httpSecret" }}{{- end -}}
{{- join ", " ($unused | sortAlpha) -}}
{{- end -}}
{{- end -}}
