{{- define "abruzzi.name" -}}{{ printf "%s-abruzzi" .Release.Name | trunc 50 | trimSuffix "-" }}{{- end -}}
{{- define "abruzzi.image" -}}{{ printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) }}{{- end -}}
{{- define "abruzzi.labels" -}}
app.kubernetes.io/name: abruzzi
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}
{{- define "abruzzi.selector" -}}
app.kubernetes.io/name: abruzzi
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}
{{- define "abruzzi.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
fsGroup: 10001
seccompProfile: { type: RuntimeDefault }
{{- end -}}
{{- define "abruzzi.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: { drop: [ALL] }
{{- end -}}
{{- define "abruzzi.store" -}}
{{- if eq .Values.store.kind "s3" -}}
{{ dict "kind" "s3" "endpoint" .Values.store.endpoint "bucket" .Values.store.bucket "region" .Values.store.region "secure" .Values.store.secure | toJson }}
{{- else -}}
{"kind": "directory", "root": "/state/store"}
{{- end -}}
{{- end -}}
{{- define "abruzzi.environment" -}}
- { name: ABRUZZI_HOME, value: /state }
- { name: ABRUZZI_STORE, value: {{ include "abruzzi.store" . | quote }} }
- name: ABRUZZI_DATABASE_URL
  valueFrom: { secretKeyRef: { name: {{ .Values.existingSecret }}, key: DATABASE_URL } }
- name: ABRUZZI_CONTROLLER_DATABASE_URL
  valueFrom: { secretKeyRef: { name: {{ .Values.existingSecret }}, key: CONTROLLER_DATABASE_URL } }
- name: ABRUZZI_SIGNING_KEY
  valueFrom: { secretKeyRef: { name: {{ .Values.existingSecret }}, key: SIGNING_KEY } }
{{- if eq .Values.store.kind "s3" }}
- name: AWS_ACCESS_KEY_ID
  valueFrom: { secretKeyRef: { name: {{ .Values.existingSecret }}, key: AWS_ACCESS_KEY_ID } }
- name: AWS_SECRET_ACCESS_KEY
  valueFrom: { secretKeyRef: { name: {{ .Values.existingSecret }}, key: AWS_SECRET_ACCESS_KEY } }
{{- end }}
{{- end -}}
