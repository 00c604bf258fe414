{{- define "site.name" -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "site.selector" -}}
app.kubernetes.io/name: metisfl-site
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "site.labels" -}}
{{ include "site.selector" . }}
app.kubernetes.io/part-of: metisfl
app.kubernetes.io/component: learner
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | quote }}
{{- end -}}

{{/* The chart's own labels and the user's. A key that is there twice could hide the pods from their selector. */}}
{{- define "site.podLabels" -}}
{{- $own := include "site.labels" . -}}
{{- $own -}}
{{- range $key, $value := .Values.podLabels }}
{{- if hasKey (fromYaml $own) $key }}
{{- fail (printf "podLabels: %s is set by the chart; leave it out" $key) }}
{{- end }}
{{ dict $key $value | toYaml }}
{{- end }}
{{- end -}}

{{/* The Secret with the bundle: the one that is named, or the one that is made. */}}
{{- define "site.bundle" -}}
{{- if and .Values.bundle.existingSecret .Values.bundle.content -}}
{{- fail "set one of bundle.content and bundle.existingSecret" -}}
{{- end -}}
{{- if .Values.bundle.existingSecret -}}
{{- .Values.bundle.existingSecret -}}
{{- else if .Values.bundle.content -}}
{{- printf "%s-bundle" (include "site.name" .) -}}
{{- else -}}
{{- fail "a site needs its bundle: --set-file bundle.content=bundle.yaml, or bundle.existingSecret" -}}
{{- end -}}
{{- end -}}
