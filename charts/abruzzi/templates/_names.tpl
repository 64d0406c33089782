{{- define "abruzzi.name" -}}{{ printf "%s-abruzzi" .Release.Name | trunc 50 | trimSuffix "-" }}{{- end -}}
{{- define "abruzzi.stagesNamespace" -}}{{ .Values.stages.namespace.name | default (printf "%s-stages" .Release.Name) }}{{- end -}}
{{- define "abruzzi.sandboxesNamespace" -}}{{ .Values.sandboxes.namespace.name | default (printf "%s-sandboxes" .Release.Name) }}{{- end -}}
{{- define "abruzzi.onCluster" -}}{{ if eq .Values.executor "kubernetes" }}true{{ end }}{{- end -}}
{{- define "abruzzi.url" -}}http://{{ include "abruzzi.name" . }}-api.{{ .Release.Namespace }}.svc:{{ .Values.api.port }}{{- end -}}
{{- define "abruzzi.sandboxesUrl" -}}http://{{ include "abruzzi.name" . }}-sandboxes.{{ include "abruzzi.sandboxesNamespace" . }}.svc:{{ .Values.sandboxes.port }}{{- end -}}
{{- /* Whether the API and the workers need the state volume: where the object store is a directory on it. */ -}}
{{- define "abruzzi.sharesState" -}}{{ if eq .Values.store.kind "directory" }}true{{ end }}{{- end -}}

{{- /* (context, image of .Values.images) */ -}}
{{- define "abruzzi.image" -}}
{{- $root := index . 0 -}}
{{- with $root.Values.images.registry }}{{ trimSuffix "/" . }}/{{ end -}}
{{ index $root.Values.images (index . 1) }}:{{ $root.Values.images.tag | default $root.Chart.AppVersion }}
{{- end -}}

{{- define "abruzzi.labels" -}}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
app.kubernetes.io/name: abruzzi
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}
{{- define "abruzzi.selector" -}}
app.kubernetes.io/name: abruzzi
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}
