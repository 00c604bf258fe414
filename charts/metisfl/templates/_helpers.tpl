{{/* The name of everything the chart makes; a release called metisfl needs no second half. */}}
{{- define "metisfl.name" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "metisfl.selector" -}}
app.kubernetes.io/name: metisfl-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "metisfl.labels" -}}
{{ include "metisfl.selector" . }}
app.kubernetes.io/part-of: metisfl
app.kubernetes.io/component: operator
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | quote }}
{{- end -}}

{{/* The chart's own labels and the user's. A key that is there twice could hide the pods from their selector. */}}
{{- define "metisfl.podLabels" -}}
{{- $own := include "metisfl.labels" . -}}
{{- $own -}}
{{- range $key, $value := .Values.podLabels }}
{{- if hasKey (fromYaml $own) $key }}
{{- fail (printf "podLabels: %s is set by the chart; leave it out" $key) }}
{{- end }}
{{ dict $key $value | toYaml }}
{{- end }}
{{- end -}}

{{- define "metisfl.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "metisfl.name" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* What the operator may do where Federations live; nothing is granted by wildcard. */}}
{{- define "metisfl.rules" -}}
- apiGroups: [metisfl.dev]
  resources: [federations]
  verbs: [get, list, watch, patch]
- apiGroups: [metisfl.dev]
  resources: [federations/status]
  verbs: [get, patch]
# To be named as the owner of objects whose deletion it holds up.
- apiGroups: [metisfl.dev]
  resources: [federations/finalizers]
  verbs: [update]
- apiGroups: [apps]
  resources: [statefulsets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [services, configmaps]
  verbs: [get, list, watch, create, patch, delete]
# Certificates and tokens of federations. Not watched: nothing is held in memory that a look does not need.
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, list, create, patch, delete]
- apiGroups: [cert-manager.io]
  resources: [certificates]
  verbs: [get, list, create, patch, delete]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies, ingresses]
  verbs: [get, list, watch, create, patch, delete]
# controller.expose.type Gateway.
- apiGroups: [gateway.networking.k8s.io]
  resources: [tlsroutes]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
# Never deleted by the operator: what was trained goes only with its Federation.
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [get, list, watch, create, patch]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch]
- apiGroups: [""]
  resources: [events]
  verbs: [get, list, create, patch]
{{- end -}}
