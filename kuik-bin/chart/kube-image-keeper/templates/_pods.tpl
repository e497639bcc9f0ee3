{{/* Pod templates shared by all components. Call each with (list $ COMPONENT). */}}

{{/* Scheduling and security fields of a pod spec. */}}
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
  {{- $given := $values.podSecurityContext }}
  {{- $isVolume := and (eq (index . 1) "registry") (eq (include "kuik.storage" $root) "volume") (eq $root.Values.registry.kind "kuik") }}
  {{- if and (kindIs "map" $given) (empty $given) $isVolume (not (include "kuik.isOpenShift" $root)) }}
  # Otherwise, the cache could not write to its volume.
  {{- $given = dict "fsGroup" 65532 }}
  {{- end }}
  {{- include "kuik.podSecurityContext" (list $root $given) | nindent 2 }}
nodeSelector:
  {{- include "kuik.nodeSelector" $values.nodeSelector | nindent 2 }}
{{- with $values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if $values.affinity }}
affinity:
  {{- toYaml $values.affinity | nindent 2 }}
{{- else if eq (index . 1) "proxy" }}
# Virtual nodes run no DaemonSet.
affinity:
  nodeAffinity:
    requiredDuringSchedulingIgnoredDuringExecution:
      nodeSelectorTerms:
        - matchExpressions:
            - {key: eks.amazonaws.com/compute-type, operator: NotIn, values: [fargate]}
            - {key: type, operator: NotIn, values: [virtual-kubelet]}
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

{{/* Container security context: least privilege. */}}
{{- define "kuik.securityContext" -}}
{{- include "kuik.leastPrivilege" (index (index . 0).Values (index . 1)).securityContext -}}
{{- end -}}

{{/* Container security context from a value: least privilege if it is not set, and none if it is empty. */}}
{{- define "kuik.leastPrivilege" -}}
{{- if kindIs "map" . -}}
{{- toYaml . -}}
{{- else -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}
{{- end -}}

{{/* Pod security context: an unprivileged user if it is not set, and none if it is empty. Call with (list $ VALUE). */}}
{{- define "kuik.podSecurityContext" -}}
{{- if kindIs "map" (index . 1) -}}
{{- toYaml (index . 1) -}}
{{- else -}}
runAsNonRoot: true
{{- if not (include "kuik.isOpenShift" (index . 0)) }}
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
{{- end }}
seccompProfile: {type: RuntimeDefault}
{{- end -}}
{{- end -}}

{{/* "true" on OpenShift, whose security context constraints assign users and groups. */}}
{{- define "kuik.isOpenShift" -}}
{{- if .Capabilities.APIVersions.Has "security.openshift.io/v1" -}}true{{- end -}}
{{- end -}}

{{/* Node selector: the image has programs for Linux only. Call with the values' own. */}}
{{- define "kuik.nodeSelector" -}}
{{- mergeOverwrite (dict "kubernetes.io/os" "linux") (default dict .) | toYaml -}}
{{- end -}}

{{/* Labels of the pods of a component, besides those of all objects. Call with (list $ COMPONENT). */}}
{{- define "kuik.podLabels" -}}
{{- with (index (index . 0).Values (index . 1)).podLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Log level, as the binaries name it; the proxy of 1.x has numbers, of which 0 and 1 are the usual ones. */}}
{{- define "kuik.log" -}}
{{- $verbosity := lower (toString (index (index . 0).Values (index . 1)).verbosity) -}}
{{- if has $verbosity (list "error" "warn" "info" "debug" "trace") -}}
{{- $verbosity -}}
{{- else if has $verbosity (list "" "0" "1" "<nil>") -}}
info
{{- else if regexMatch "^[1-9][0-9]*$" $verbosity -}}
debug
{{- else -}}
{{- fail (printf "%s.verbosity is %q: set it to ERROR, WARN, INFO or DEBUG" (index . 1) $verbosity) -}}
{{- end -}}
{{- end -}}

{{/* Flags for plain-HTTP registries and certificate authorities, the same for every binary. Call with $. */}}
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

{{/* Flags for cloud identities. */}}
{{- define "kuik.ambientArguments" -}}
{{- range .Values.ambientCredentials }}
- --ambient-credentials={{ . }}
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

{{/* PodDisruptionBudget, in the API version of the cluster. */}}
{{- define "kuik.pdb" -}}
{{- $root := index . 0 -}}
{{- $component := index . 1 -}}
{{- $pdb := (index $root.Values $component).pdb -}}
{{- if $pdb.create -}}
apiVersion: {{ semverCompare ">=1.21-0" $root.Capabilities.KubeVersion.Version | ternary "policy/v1" "policy/v1beta1" }}
kind: PodDisruptionBudget
metadata:
  name: {{ include "kuik.fullname" $root }}-{{ $component }}
  namespace: {{ $root.Release.Namespace | quote }}
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

{{/* PodMonitor of the Prometheus Operator. */}}
{{- define "kuik.podMonitor" -}}
{{- $root := index . 0 -}}
{{- $component := index . 1 -}}
{{- with (index $root.Values $component).podMonitor -}}
{{- if .create -}}
apiVersion: monitoring.coreos.com/v1
kind: PodMonitor
metadata:
  name: {{ include "kuik.fullname" $root }}-{{ $component }}
  namespace: {{ $root.Release.Namespace | quote }}
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

{{/* The chart's own environment variables, without those that the values set. Call with (list YAML VALUES). */}}
{{- define "kuik.ownEnvironment" -}}
{{- $set := dict -}}
{{- range index . 1 }}{{- $_ := set $set .name true }}{{- end -}}
{{- range (printf "own:\n%s" (index . 0) | fromYaml).own -}}
{{- if not (hasKey $set .name) }}
- {{ toJson . }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Environment variables from values, whose numbers and booleans are texts. */}}
{{- define "kuik.environment" -}}
{{- range . }}
- {{ (kindIs "invalid" .value) | ternary . (mergeOverwrite (dict) . (dict "value" (toString .value))) | toJson }}
{{- end }}
{{- end -}}

{{/*
Probes, with those of kuik 1.x mapped to the addresses of this version. Call with (list $ COMPONENT PROBE PATH): PATH is
where kuik-registry answers without the token.
*/}}
{{- define "kuik.probe" -}}
{{- $root := index . 0 -}}
{{- $component := index . 1 -}}
{{- $probe := deepCopy (index . 2) -}}
{{- if $probe.httpGet -}}
{{- $port := toString $probe.httpGet.port -}}
{{- if eq $component "proxy" -}}
{{- /* In 1.x, the proxy has one port for pulls and probes; here pulls may be bound to the loopback interface. */ -}}
{{- if has $port (list "8080" "7439" "8082" "metrics" (toString $root.Values.proxy.hostPort)) -}}
{{- $_ := set $probe.httpGet "port" (int $root.Values.proxy.metricsPort) -}}
{{- with include "kuik.proxy.probeHost" $root -}}
{{- $_ := set $probe.httpGet "host" (default . $probe.httpGet.host) -}}
{{- end -}}
{{- end -}}
{{- else if eq $component "controllers" -}}
{{- if has $port (list "8081" "health") -}}
{{- $_ := set $probe.httpGet "port" (int $root.Values.controllers.healthPort) -}}
{{- end -}}
{{- else if and (eq $root.Values.registry.kind "kuik") (has (toString $probe.httpGet.path) (list "/v2" "/v2/" "/")) -}}
{{- $_ := set $probe.httpGet "path" (index . 3) -}}
{{- end -}}
{{- end -}}
{{- toYaml $probe -}}
{{- end -}}

{{/* A probe with the default's handler, unless it has another one. Call with (list PROBE DEFAULT). */}}
{{- define "kuik.withHandler" -}}
{{- $probe := default dict (index . 0) -}}
{{- if or $probe.tcpSocket $probe.exec $probe.grpc -}}
{{- toYaml $probe -}}
{{- else -}}
{{- mergeOverwrite (dict) (deepCopy (index . 1)) (deepCopy $probe) | toYaml -}}
{{- end -}}
{{- end -}}

{{/* Extra volumes, mounts and init containers of a component. Call each with (list $ COMPONENT). */}}
{{- define "kuik.extraVolumes" -}}
{{- with (index (index . 0).Values (index . 1)).extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "kuik.extraVolumeMounts" -}}
{{- with (index (index . 0).Values (index . 1)).extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "kuik.extraInitContainers" -}}
{{- with (index (index . 0).Values (index . 1)).extraInitContainers }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "kuik.extraArguments" -}}
{{- range (index (index . 0).Values (index . 1)).extraArgs }}
- {{ toString . | quote }}
{{- end }}
{{- end -}}
