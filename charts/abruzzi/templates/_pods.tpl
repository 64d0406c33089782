{{- /* What all pods have in common. (context, component, annotations of its own) */ -}}
{{- define "abruzzi.podMetadata" -}}
labels:
  {{- include "abruzzi.labels" (index . 0) | nindent 2 }}
  app.kubernetes.io/component: {{ index . 1 }}
{{- $annotations := merge (dict) ((index . 0).Values.pods.annotations | default dict) }}
{{- if gt (len .) 2 }}{{ $annotations = merge $annotations (index . 2) }}{{ end }}
{{- with $annotations }}
annotations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "abruzzi.podFields" -}}
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
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

{{- /* Replicas on different nodes where that is possible; beside the controller where a volume of one node is shared. (context, component) */ -}}
{{- define "abruzzi.spread" -}}
{{- $root := index . 0 }}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "abruzzi.selector" $root | nindent 8 }}
        app.kubernetes.io/component: {{ index . 1 }}
{{- if and (include "abruzzi.sharesState" $root) (eq $root.Values.state.accessMode "ReadWriteOnce") }}
affinity:
  podAffinity:
    requiredDuringSchedulingIgnoredDuringExecution:
      - topologyKey: kubernetes.io/hostname
        labelSelector:
          matchLabels:
            {{- include "abruzzi.selector" $root | nindent 12 }}
            app.kubernetes.io/component: controller
{{- end }}
{{- end -}}

{{- define "abruzzi.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: { drop: [ALL] }
{{- end -}}

{{- define "abruzzi.volumeMounts" -}}
- { name: tmp, mountPath: /tmp }
- { name: state, mountPath: /state }
{{- include "abruzzi.moreMounts" . }}
{{- end -}}

{{- /* What the installation adds to every pod of the platform. */ -}}
{{- define "abruzzi.moreMounts" -}}
{{- with .Values.pods.volumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}
{{- define "abruzzi.moreVolumes" -}}
{{- with .Values.pods.volumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}
{{- define "abruzzi.moreEnvironment" -}}
{{- range $name, $value := .Values.pods.env }}
- { name: {{ $name }}, value: {{ $value | quote }} }
{{- end }}
{{- end -}}

{{- /* (context, whether /state is the volume that lasts) */ -}}
{{- define "abruzzi.volumes" -}}
- { name: tmp, emptyDir: {} }
{{- if index . 1 }}
- { name: state, persistentVolumeClaim: { claimName: {{ include "abruzzi.name" (index . 0) }}-state } }
{{- else }}
- { name: state, emptyDir: {} }
{{- end }}
{{- include "abruzzi.moreVolumes" (index . 0) }}
{{- end -}}

{{- define "abruzzi.store" -}}
{{- if eq .Values.store.kind "s3" -}}
{{ dict "kind" "s3" "endpoint" .Values.store.endpoint "bucket" .Values.store.bucket "region" .Values.store.region "secure" .Values.store.secure | toJson }}
{{- else -}}
{"kind": "directory", "root": "/state/store"}
{{- end -}}
{{- end -}}

{{- /* Variables from the Secret. (context, variable: key …) */ -}}
{{- define "abruzzi.secrets" -}}
{{- $root := index . 0 }}
{{- range $variable, $key := index . 1 }}
- name: {{ $variable }}
  valueFrom: { secretKeyRef: { name: {{ $root.Values.existingSecret }}, key: {{ $key }} } }
{{- end }}
{{- end -}}

{{- define "abruzzi.storeEnvironment" -}}
- { name: ABRUZZI_HOME, value: /state }
- name: ABRUZZI_STORE
  value: {{ include "abruzzi.store" . | quote }}
{{- if eq .Values.store.kind "s3" }}
{{- include "abruzzi.secrets" (list . (dict "AWS_ACCESS_KEY_ID" "AWS_ACCESS_KEY_ID" "AWS_SECRET_ACCESS_KEY" "AWS_SECRET_ACCESS_KEY")) }}
{{- end }}
{{- include "abruzzi.moreEnvironment" . }}
{{- end -}}

{{- /* What API and side work both ask: which notifications are taken, and where they may go. */ -}}
{{- define "abruzzi.settings" -}}
{{- with .Values.publicUrl }}
- { name: ABRUZZI_PUBLIC_URL, value: {{ . | quote }} }
{{- end }}
{{- with .Values.smtp.host }}
- { name: ABRUZZI_SMTP_HOST, value: {{ . | quote }} }
- { name: ABRUZZI_SMTP_PORT, value: {{ $.Values.smtp.port | int | quote }} }
- { name: ABRUZZI_SMTP_SECURITY, value: {{ $.Values.smtp.security | quote }} }
- { name: ABRUZZI_SMTP_FROM, value: {{ $.Values.smtp.from | quote }} }
{{- end }}
- { name: ABRUZZI_WEBHOOK_SCHEMES, value: {{ .Values.webhooks.schemes | toJson | quote }} }
- { name: ABRUZZI_WEBHOOK_PORTS, value: {{ .Values.webhooks.ports | toJson | quote }} }
- { name: ABRUZZI_WEBHOOK_NETWORKS, value: {{ .Values.webhooks.networks | toJson | quote }} }
{{- end -}}

{{- /* The identity provider. A public client has no secret. */ -}}
{{- define "abruzzi.signIn" -}}
{{- with .Values.oidc }}
- { name: ABRUZZI_OIDC, value: {{ . | toJson | quote }} }
- name: ABRUZZI_OIDC_CLIENT_SECRET
  valueFrom: { secretKeyRef: { name: {{ $.Values.existingSecret }}, key: OIDC_CLIENT_SECRET, optional: true } }
{{- end }}
{{- end -}}

{{- /* Who does the side work: the workers, or the controllers where there are none. */ -}}
{{- define "abruzzi.sideWork" -}}
{{- include "abruzzi.settings" . }}
{{- include "abruzzi.secrets" (list . (dict "ABRUZZI_SIGNING_KEY" "SIGNING_KEY")) }}
{{- if and .Values.smtp.host .Values.smtp.user }}
- { name: ABRUZZI_SMTP_USER, value: {{ .Values.smtp.user | quote }} }
{{- include "abruzzi.secrets" (list . (dict "ABRUZZI_SMTP_PASSWORD" "SMTP_PASSWORD")) }}
{{- end }}
{{- with .Values.retention }}
- { name: ABRUZZI_RETENTION, value: {{ . | toJson | quote }} }
{{- end }}
{{- with .Values.grafana.url }}
- { name: ABRUZZI_GRAFANA_URL, value: {{ . | quote }} }
- { name: ABRUZZI_PROMETHEUS_URL, value: {{ $.Values.grafana.prometheusUrl | quote }} }
- { name: ABRUZZI_DASHBOARDS_DIR, value: /app/charts/abruzzi/dashboards }
{{- include "abruzzi.secrets" (list $ (dict "ABRUZZI_GRAFANA_TOKEN" "GRAFANA_TOKEN")) }}
{{- end }}
{{- end -}}
