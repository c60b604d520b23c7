{{/* A table of settings as TOML. JSON's texts, numbers, booleans and flat lists are TOML's as well, and
     its whole numbers stay whole, which helm's own toToml makes floats of. */}}
{{- define "p2pdist.toml" -}}
{{- range $key, $value := . }}
{{ $key }} = {{ toJson $value }}
{{- end }}
{{- end -}}

{{/* Where the files of a registry are mounted; call with its place in the list. */}}
{{- define "p2pdist.registryDir" -}}
/run/p2pdist/registries/{{ . }}
{{- end -}}

{{/* [[upstream]]: all of them at a proxy; at a peer those that it can read itself, without any file. */}}
{{- define "p2pdist.registries" -}}
{{- $ := index . 0 -}}
{{- $role := index . 1 -}}
{{- range $place, $registry := $.Values.registries }}
{{- $dir := include "p2pdist.registryDir" $place }}
{{- $account := or $registry.username $registry.passwordSecret $registry.authSecret $registry.caConfigMap $registry.clientCertSecret }}
{{- if or (eq $role "proxy") (not $account) }}
{{- $table := omit $registry "passwordSecret" "authSecret" "caConfigMap" "clientCertSecret" }}
{{- if $registry.passwordSecret }}{{ $table = set $table "password_file" (printf "%s/password" $dir) }}{{ end }}
{{- if $registry.authSecret }}{{ $table = set $table "auth_file" (printf "%s/auth.json" $dir) }}{{ end }}
{{- if $registry.caConfigMap }}{{ $table = set $table "ca_file" (printf "%s/ca.pem" $dir) }}{{ end }}
{{- if $registry.clientCertSecret }}
{{- $table = set $table "cert_file" (printf "%s/tls.crt" $dir) }}
{{- $table = set $table "cert_key_file" (printf "%s/tls.key" $dir) }}
{{- end }}

[[upstream]]
{{- include "p2pdist.toml" $table }}
{{- end }}
{{- end }}
{{- end -}}

{{/* The volumes that those files come from: read again when their Secrets change, without a restart. */}}
{{- define "p2pdist.registrySources" -}}
{{- range $place, $registry := .Values.registries }}
{{- with $registry.passwordSecret }}
- secret: {name: {{ .name }}, items: [{key: {{ .key }}, path: {{ $place }}/password}]}
{{- end }}
{{- with $registry.authSecret }}
- secret: {name: {{ .name }}, items: [{key: {{ .key }}, path: {{ $place }}/auth.json}]}
{{- end }}
{{- with $registry.caConfigMap }}
- configMap: {name: {{ .name }}, items: [{key: {{ .key }}, path: {{ $place }}/ca.pem}]}
{{- end }}
{{- with $registry.clientCertSecret }}
- secret:
    name: {{ . }}
    items: [{key: tls.crt, path: {{ $place }}/tls.crt}, {key: tls.key, path: {{ $place }}/tls.key}]
{{- end }}
{{- end }}
{{- end -}}

{{/* The configuration of one role; call with (list . "peer"). What the chart decides goes last. */}}
{{- define "p2pdist.config" -}}
{{- $ := index . 0 -}}
{{- $role := index . 1 -}}
{{- $tracker := printf "tcp://%s:5200" (include "p2pdist.trackerHost" $) -}}
{{- $ports := $.Values.peer.ports -}}
{{- $adminHost := ternary $.Values.listenHost "127.0.0.1" $.Values.monitoring.podMonitor.enabled -}}
{{- $decided := dict
  "tracker" (dict "tracker" (dict "listen" (printf "%s:5200" $.Values.listenHost) "admin_listen" (printf "%s:5209" $.Values.listenHost)))
  "proxy" (dict "proxy" (dict
    "listen" (printf "%s:5100" $.Values.listenHost) "exchange_listen" (printf "%s:5101" $.Values.listenHost) "admin_listen" (printf "%s:5109" $.Values.listenHost)
    "key_file" "/run/p2pdist/proxy/proxy.key" "trackers" (list $tracker)))
  "peer" (dict "peer" (dict
    "listen" (printf "127.0.0.1:%v" $ports.mirror)
    "exchange_listen" (printf "%s:%v" $.Values.listenHost $ports.exchange)
    "admin_listen" (printf "%s:%v" $adminHost $ports.admin)
    "trackers" (list $tracker) "proxies" (include "p2pdist.proxyURLs" $ | fromJsonArray))) -}}
{{- $sections := mergeOverwrite (deepCopy (index $.Values $role).settings) (index $decided $role) (dict
  "cluster" (dict
    "secret_file" "/run/p2pdist/cluster/cluster.secret"
    "proxy_keys_file" "/run/p2pdist/cluster/proxy.pub"
    "member_networks" $.Values.memberNetworks)
  "host" (dict "dc" $.Values.dc)
  "log" $.Values.log) -}}
{{- if $.Values.certificates.enabled -}}
{{- $sections = mergeOverwrite $sections (include "p2pdist.certificateSettings" . | fromJson) -}}
{{- end -}}
{{- if and (eq $role "proxy") $.Values.replicate -}}
{{- $_ := set $sections.proxy "job_trackers" (list (printf "http://%s:5209" (include "p2pdist.trackerHost" $))) -}}
{{- end -}}
# Made by the chart from its values; the settings are those of docs/configuration.md.
{{- range $section, $settings := $sections }}

[{{ $section }}]
{{- include "p2pdist.toml" $settings }}
{{- end }}
{{- if ne $role "tracker" }}
{{- include "p2pdist.registries" . }}
{{- end }}
{{- if eq $role "proxy" }}
{{- range $.Values.replicate }}

[[replicate]]
{{- include "p2pdist.toml" . }}
{{- end }}
{{- end }}
{{- end -}}
