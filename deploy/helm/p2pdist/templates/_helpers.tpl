{{- define "p2pdist.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* What selects the pods of a part; call with (list . "peer"). */}}
{{- define "p2pdist.selector" -}}
{{- $ := index . 0 -}}
app.kubernetes.io/name: {{ default $.Chart.Name $.Values.nameOverride }}
app.kubernetes.io/instance: {{ $.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{- define "p2pdist.labels" -}}
{{- $ := index . 0 -}}
{{ include "p2pdist.selector" . }}
app.kubernetes.io/version: {{ $.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $.Chart.Name $.Chart.Version }}
{{- end -}}

{{- define "p2pdist.image" -}}
{{- $image := .Values.image -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ $image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{- define "p2pdist.clusterSecret" -}}
{{ .Values.secrets.cluster | default (printf "%s-cluster" (include "p2pdist.fullname" .)) }}
{{- end -}}

{{- define "p2pdist.proxySecret" -}}
{{ .Values.secrets.proxyKey | default (printf "%s-proxy" (include "p2pdist.fullname" .)) }}
{{- end -}}

{{- define "p2pdist.trackerHost" -}}
{{ include "p2pdist.fullname" . }}-tracker.{{ .Release.Namespace }}.svc
{{- end -}}

{{/* Every proxy by a name of its own: peers choose among them by the blob. */}}
{{- define "p2pdist.proxyURLs" -}}
{{- $name := printf "%s-proxy" (include "p2pdist.fullname" .) -}}
{{- $urls := list -}}
{{- range until (int .Values.proxy.replicas) -}}
{{- $urls = append $urls (printf "http://%s-%d.%s.%s.svc:5100" $name . $name $.Release.Namespace) -}}
{{- end -}}
{{- toJson $urls -}}
{{- end -}}

{{/* Pods run as the image's user; secrets are root's, and its group may read them. */}}
{{- define "p2pdist.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "p2pdist.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{/* Of containers that change files of the node; see peer.initSecurityContext in values.yaml. */}}
{{- define "p2pdist.nodeSecurityContext" -}}
{{- $own := dict
  "runAsNonRoot" false "runAsUser" 0 "runAsGroup" 0
  "allowPrivilegeEscalation" false "readOnlyRootFilesystem" true
  "capabilities" (dict "drop" (list "ALL") "add" (list "CHOWN" "DAC_OVERRIDE" "FOWNER")) -}}
{{- toYaml (mergeOverwrite $own (deepCopy .Values.peer.initSecurityContext)) -}}
{{- end -}}

{{/* The node's files that `p2pdist runtime` reads and writes, below /host. */}}
{{- define "p2pdist.nodeMounts" -}}
- {name: containerd, mountPath: /host/etc/containerd}
{{- with .Values.runtime.certsDir }}
- {name: certs, mountPath: /host{{ . }}}
{{- end }}
- {name: originals, mountPath: /host/var/lib/p2pdist/runtime}
{{- end -}}

{{- define "p2pdist.nodeVolumes" -}}
- name: containerd
  hostPath: {path: {{ .Values.runtime.configDir }}, type: DirectoryOrCreate}
{{- with .Values.runtime.certsDir }}
- name: certs
  hostPath: {path: {{ . }}, type: DirectoryOrCreate}
{{- end }}
- name: originals
  hostPath: {path: {{ .Values.peer.stateDir }}/runtime, type: DirectoryOrCreate}
{{- end -}}

{{/* Liveness and readiness of a daemon, and its start; call with (list host port). */}}
{{- define "p2pdist.probes" -}}
{{- $host := index . 0 -}}
{{- range $kind, $spec := dict
  "startupProbe" (dict "path" "/livez" "period" 5 "failures" 60)
  "livenessProbe" (dict "path" "/livez" "period" 10 "failures" 6)
  "readinessProbe" (dict "path" "/readyz" "period" 5 "failures" 2) }}
{{ $kind }}:
  httpGet:
    {{- with $host }}
    host: {{ . }}
    {{- end }}
    path: {{ $spec.path }}
    port: admin
  periodSeconds: {{ $spec.period }}
  timeoutSeconds: 4
  failureThreshold: {{ $spec.failures }}
{{- end }}
{{- end -}}
