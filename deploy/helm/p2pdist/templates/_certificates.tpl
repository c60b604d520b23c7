{{/* Settings that certificates need, by role, besides those of p2pdist.config; call with (list . "peer"). */}}
{{- define "p2pdist.certificateSettings" -}}
{{- $ := index . 0 -}}
{{- $role := index . 1 -}}
{{- $own := dict "identity_dir" "/var/lib/p2pdist/identity" -}}
{{- if eq $role "tracker" -}}
{{- $_ := set $own "ca_dir" "/run/p2pdist/ca" -}}
{{- $_ := set $own "join" (printf "%s:5201" (include "p2pdist.trackerHost" $)) -}}
{{- end -}}
{{- dict $role $own "cluster" (dict "require_identity" $.Values.certificates.required) | toJson -}}
{{- end -}}

{{/* What is kept on disks that may be lost at any time would be asked for again, with no token left for it. */}}
{{- define "p2pdist.certificatesNeedDisks" -}}
{{- if .Values.certificates.enabled }}
{{- if not .Values.tracker.persistence.enabled }}
{{- fail "certificates.enabled needs tracker.persistence.enabled: which tokens were used is remembered there" }}
{{- end }}
{{- if not .Values.proxy.persistence.enabled }}
{{- fail "certificates.enabled needs proxy.persistence.enabled: the certificate is there, and its token was good once" }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Gets a daemon its certificate before it starts, if it has none that is good; call with (list . "peer" "store"),
     the last the volume of what it keeps. The tracker has the CA anyhow; all others ask it, with a token. */}}
{{- define "p2pdist.certificateContainer" -}}
{{- $ := index . 0 -}}
{{- $role := index . 1 -}}
- name: certificate
  image: {{ include "p2pdist.image" $ }}
  imagePullPolicy: {{ $.Values.image.pullPolicy }}
  {{- if eq $role "proxy" }}
  env:
    - name: POD_NAME
      valueFrom: {fieldRef: {fieldPath: metadata.name}}
  {{- end }}
  args:
    {{- if eq $role "tracker" }}
    - ca
    - issue
    - --role=tracker
    - --dir=/run/p2pdist/ca
    {{- else }}
    - join
    - --token-file=/run/p2pdist/join/{{ ternary "$(POD_NAME)" $role (eq $role "proxy") }}
    {{- end }}
    - --out=/var/lib/p2pdist/identity
    - --if-needed
  securityContext: {{- include "p2pdist.securityContext" $ | nindent 4 }}
  resources:
    requests: {cpu: 10m, memory: 64Mi}
    limits: {memory: 256Mi}
  volumeMounts:
    {{- if eq $role "tracker" }}
    - {name: ca, mountPath: /run/p2pdist/ca, readOnly: true}
    {{- else }}
    - {name: join, mountPath: /run/p2pdist/join, readOnly: true}
    {{- end }}
    - {name: {{ index . 2 }}, mountPath: /var/lib/p2pdist}
{{- end -}}

{{/* What that container reads. Tokens may be gone once all have their certificates. */}}
{{- define "p2pdist.certificateVolume" -}}
{{- $ := index . 0 -}}
{{- $role := index . 1 -}}
{{- if eq $role "tracker" -}}
- name: ca
  secret: {secretName: {{ $.Values.certificates.caSecret }}, defaultMode: 0440}
{{- else -}}
- name: join
  secret:
    secretName: {{ $.Values.certificates.joinSecret }}
    defaultMode: 0440
    optional: true
    items:
      {{- if eq $role "peer" }}
      - {key: peer, path: peer}
      {{- else }}
      {{- range until (int $.Values.proxy.replicas) }}
      - {key: proxy-{{ . }}, path: {{ include "p2pdist.fullname" $ }}-proxy-{{ . }}}
      {{- end }}
      {{- end }}
{{- end -}}
{{- end -}}
