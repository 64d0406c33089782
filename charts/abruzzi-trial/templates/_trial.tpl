{{- define "trial.secret" -}}{{ .Release.Name }}-platform{{- end -}}

{{- define "trial.labels" -}}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
app.kubernetes.io/name: abruzzi-trial
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}
{{- /* (context, component) */ -}}
{{- define "trial.selector" -}}
app.kubernetes.io/name: abruzzi-trial
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{- /* (context, component) */ -}}
{{- define "trial.image" -}}
{{- $images := (index . 0).Values.images -}}
{{- with $images.registry }}{{ trimSuffix "/" . }}/{{ end -}}
{{ index $images (index . 1) }}:{{ $images.tag | default (index . 0).Chart.AppVersion }}
{{- end -}}

{{- define "trial.podFields" -}}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  # Postgres keeps its folder to itself; its mode must not be widened at each start.
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: { type: RuntimeDefault }
{{- with .Values.images.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "trial.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: { drop: [ALL] }
{{- end -}}

{{- /* Where the data are. (context, component) */ -}}
{{- define "trial.volumes" -}}
volumes:
  - { name: tmp, emptyDir: {} }
  {{- if not (index . 0).Values.persistence.enabled }}
  - { name: data, emptyDir: {} }
  {{- end }}
{{- end -}}
{{- define "trial.claims" -}}
{{- $root := index . 0 -}}
{{- if $root.Values.persistence.enabled -}}
volumeClaimTemplates:
  - apiVersion: v1
    kind: PersistentVolumeClaim
    metadata: { name: data }
    spec:
      accessModes: [ReadWriteOnce]
      {{- with $root.Values.persistence.storageClass }}
      storageClassName: {{ . }}
      {{- end }}
      resources: { requests: { storage: {{ index $root.Values.persistence (index . 1) }} } }
{{- end -}}
{{- end -}}
