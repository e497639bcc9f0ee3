{{/* What the pods of all components share. Each takes (list $ COMPONENT). */}}

{{/* What comes first in a pod's spec. */}}
{{- define "kuik.pod" -}}
{{- $root := index . 0 -}}
{{- $values := index $root.Values (index . 1) -}}
{{- with default $root.Values.imagePullSecrets $values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- $class := $values.priorityClassName }}
{{- if and (not $class) $root.Values.priorityClass.create (ne (index . 1) "proxy") }}
{{- $class = include "kuik.fullname" $root }}
{{- end }}
{{- with $class }}
priorityClassName: {{ . }}
{{- end }}
securityContext:
  {{- if $values.podSecurityContext }}
  {{- toYaml $values.podSecurityContext | nindent 2 }}
  {{- else }}
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  seccompProfile: {type: RuntimeDefault}
  {{- end }}
{{- with $values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if ne (index . 1) "proxy" }}
topologySpreadConstraints:
  {{- if $values.topologySpreadConstraints }}
  {{- toYaml $values.topologySpreadConstraints | nindent 2 }}
  {{- else }}
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "kuik.selector" $root | nindent 8 }}
        app.kubernetes.io/component: {{ index . 1 }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* What a container may do: nothing that it needs no right for. */}}
{{- define "kuik.securityContext" -}}
{{- $values := index (index . 0).Values (index . 1) -}}
{{- if $values.securityContext -}}
{{- toYaml $values.securityContext -}}
{{- else -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}
{{- end -}}

{{/* The level that is logged, in the words of the binaries. */}}
{{- define "kuik.log" -}}
{{- $verbosity := lower (toString (index (index . 0).Values (index . 1)).verbosity) -}}
{{- if has $verbosity (list "error" "warn" "info" "debug" "trace") -}}
{{- $verbosity -}}
{{- else if has $verbosity (list "" "0") -}}
info
{{- else if regexMatch "^[1-9][0-9]*$" $verbosity -}}
debug
{{- else -}}
{{- fail (printf "%s.verbosity is %q: set it to ERROR, WARN, INFO or DEBUG" (index . 1) $verbosity) -}}
{{- end -}}
{{- end -}}

{{/* Registries without TLS, and authorities: the same flags for every binary. Takes $. */}}
{{- define "kuik.originArguments" -}}
{{- range .Values.insecureRegistries }}
- --insecure-registries={{ . }}
{{- end }}
{{- $authorities := .Values.rootCertificateAuthorities }}
{{- if $authorities.secretName }}
{{- range $authorities.keys }}
- --root-certificate-authorities=/etc/kuik/authorities/{{ . }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "kuik.authoritiesMount" -}}
{{- if .Values.rootCertificateAuthorities.secretName }}
- name: authorities
  mountPath: /etc/kuik/authorities
  readOnly: true
{{- end }}
{{- end -}}

{{- define "kuik.authoritiesVolume" -}}
{{- with .Values.rootCertificateAuthorities }}
{{- if .secretName }}
- name: authorities
  secret:
    secretName: {{ .secretName }}
{{- end }}
{{- end }}
{{- end -}}

{{/* A PodDisruptionBudget, in the version that the cluster has. */}}
{{- define "kuik.pdb" -}}
{{- $root := index . 0 -}}
{{- $component := index . 1 -}}
{{- $pdb := (index $root.Values $component).pdb -}}
{{- if $pdb.create -}}
apiVersion: {{ semverCompare ">=1.21-0" $root.Capabilities.KubeVersion.Version | ternary "policy/v1" "policy/v1beta1" }}
kind: PodDisruptionBudget
metadata:
  name: {{ include "kuik.fullname" $root }}-{{ $component }}
  namespace: {{ $root.Release.Namespace }}
  labels:
    {{- include "kuik.labels" $root | nindent 4 }}
    app.kubernetes.io/component: {{ $component }}
spec:
  {{- if not (has (toString $pdb.maxUnavailable) (list "" "<nil>")) }}
  maxUnavailable: {{ $pdb.maxUnavailable }}
  {{- else }}
  minAvailable: {{ $pdb.minAvailable }}
  {{- end }}
  selector:
    matchLabels:
      {{- include "kuik.selector" $root | nindent 6 }}
      app.kubernetes.io/component: {{ $component }}
{{- end -}}
{{- end -}}

{{/* A PodMonitor of Prometheus' operator. */}}
{{- define "kuik.podMonitor" -}}
{{- $root := index . 0 -}}
{{- $component := index . 1 -}}
{{- with (index $root.Values $component).podMonitor -}}
{{- if .create -}}
apiVersion: monitoring.coreos.com/v1
kind: PodMonitor
metadata:
  name: {{ include "kuik.fullname" $root }}-{{ $component }}
  namespace: {{ $root.Release.Namespace }}
  labels:
    {{- include "kuik.labels" $root | nindent 4 }}
    app.kubernetes.io/component: {{ $component }}
    {{- with .extraLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  selector:
    matchLabels:
      {{- include "kuik.selector" $root | nindent 6 }}
      app.kubernetes.io/component: {{ $component }}
  podMetricsEndpoints:
    - port: metrics
      interval: {{ .scrapeInterval }}
      scrapeTimeout: {{ .scrapeTimeout }}
      {{- with .relabelings }}
      relabelings:
        {{- toYaml . | nindent 8 }}
      {{- end }}
{{- end -}}
{{- end -}}
{{- end -}}
