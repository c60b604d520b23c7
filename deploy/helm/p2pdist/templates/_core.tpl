{{/* A StatefulSet in the network of the pods, with a disk: the proxies or the tracker; call with
     (list . "proxy"). */}}
{{- define "p2pdist.core" -}}
{{- $ := index . 0 -}}
{{- $role := index . 1 -}}
{{- $name := include "p2pdist.fullname" $ -}}
{{- $part := index $.Values $role -}}
apiVersion: apps/v1
kind: StatefulSet
metadata:
  name: {{ $name }}-{{ $role }}
  labels: {{- include "p2pdist.labels" . | nindent 4 }}
spec:
  replicas: {{ default 1 $part.replicas }}
  serviceName: {{ $name }}-{{ $role }}
  podManagementPolicy: Parallel
  selector:
    matchLabels: {{- include "p2pdist.selector" . | nindent 6 }}
  template:
    metadata:
      labels:
        {{- include "p2pdist.labels" . | nindent 8 }}
        {{- with $part.podLabels }}{{ toYaml . | nindent 8 }}{{ end }}
      annotations:
        checksum/config: {{ include "p2pdist.config" . | sha256sum }}
        {{- with $part.podAnnotations }}{{ toYaml . | nindent 8 }}{{ end }}
    spec:
      automountServiceAccountToken: false
      enableServiceLinks: false
      {{- with $part.priorityClassName }}
      priorityClassName: {{ . }}
      {{- end }}
      # What is on its way is finished within 30 s.
      terminationGracePeriodSeconds: 45
      nodeSelector:
        kubernetes.io/os: linux
        {{- with $part.nodeSelector }}{{ toYaml . | nindent 8 }}{{ end }}
      affinity:
        {{- if $part.affinity }}
        {{- toYaml $part.affinity | nindent 8 }}
        {{- else }}
        podAntiAffinity:
          preferredDuringSchedulingIgnoredDuringExecution:
            - weight: 100
              podAffinityTerm:
                topologyKey: kubernetes.io/hostname
                labelSelector:
                  matchLabels: {{- include "p2pdist.selector" . | nindent 20 }}
        {{- end }}
      {{- with $part.tolerations }}
      tolerations: {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $.Values.image.pullSecrets }}
      imagePullSecrets: {{- range . }}{{ printf "\n- name: %s" . | nindent 8 }}{{ end }}
      {{- end }}
      securityContext: {{- include "p2pdist.podSecurityContext" $ | nindent 8 }}
      {{- if $.Values.certificates.enabled }}
      initContainers:
        {{- include "p2pdist.certificateContainer" (list $ $role "state") | nindent 8 }}
      {{- end }}
      containers:
        - name: {{ $role }}
          image: {{ include "p2pdist.image" $ }}
          imagePullPolicy: {{ $.Values.image.pullPolicy }}
          args: [{{ $role }}]
          ports:
            {{- range $port, $number := include "p2pdist.corePorts" . | fromYaml }}
            - {name: {{ $port }}, containerPort: {{ $number }}, protocol: TCP}
            {{- end }}
          {{- include "p2pdist.probes" (list "") | nindent 10 }}
          securityContext: {{- include "p2pdist.securityContext" $ | nindent 12 }}
          resources: {{- toYaml $part.resources | nindent 12 }}
          volumeMounts:
            - {name: config, mountPath: /etc/p2pdist, readOnly: true}
            - {name: cluster, mountPath: /run/p2pdist/cluster, readOnly: true}
            - {name: state, mountPath: /var/lib/p2pdist}
            {{- if and $.Values.certificates.enabled (eq $role "tracker") }}
            # Signs with it, and reads its revoked.list again and again.
            - {name: ca, mountPath: /run/p2pdist/ca, readOnly: true}
            {{- end }}
            {{- if eq $role "proxy" }}
            - {name: key, mountPath: /run/p2pdist/proxy, readOnly: true}
            {{- if include "p2pdist.registrySources" $ }}
            - {name: registries, mountPath: /run/p2pdist/registries, readOnly: true}
            {{- end }}
            {{- end }}
      volumes:
        - name: config
          configMap: {name: {{ $name }}-{{ $role }}}
        - name: cluster
          secret: {secretName: {{ include "p2pdist.clusterSecret" $ }}, defaultMode: 0440}
        {{- if $.Values.certificates.enabled }}
        {{- include "p2pdist.certificateVolume" . | nindent 8 }}
        {{- end }}
        {{- if eq $role "proxy" }}
        - name: key
          secret: {secretName: {{ include "p2pdist.proxySecret" $ }}, defaultMode: 0440}
        {{- with include "p2pdist.registrySources" $ }}
        - name: registries
          projected:
            defaultMode: 0440
            sources: {{- . | nindent 14 }}
        {{- end }}
        {{- end }}
        {{- if not $part.persistence.enabled }}
        - name: state
          emptyDir: {sizeLimit: {{ $part.persistence.size }}}
        {{- end }}
  {{- if $part.persistence.enabled }}
  # The disk goes with the release; it holds nothing that cannot be fetched again.
  persistentVolumeClaimRetentionPolicy: {whenDeleted: Delete, whenScaled: Delete}
  volumeClaimTemplates:
    - apiVersion: v1
      kind: PersistentVolumeClaim
      metadata:
        name: state
      spec:
        accessModes: [ReadWriteOnce]
        {{- with $part.persistence.storageClass }}
        storageClassName: {{ . }}
        {{- end }}
        resources:
          requests: {storage: {{ $part.persistence.size }}}
  {{- end }}
{{- end -}}

{{/* The ports of a role; call with (list . "proxy"). */}}
{{- define "p2pdist.corePorts" -}}
{{- if eq (index . 1) "proxy" -}}
{pull: 5100, exchange: 5101, admin: 5109}
{{- else -}}
{control: 5200, admin: 5209{{ if (index . 0).Values.certificates.enabled }}, join: 5201{{ end }}}
{{- end -}}
{{- end -}}
