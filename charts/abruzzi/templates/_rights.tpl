{{- /* Made by `make chart` from abruzzi_operators.executors.ground: change it there. */ -}}
{{- define "abruzzi.rules" -}}
- apiGroups:
  - batch
  resources:
  - jobs
  verbs:
  - get
  - list
  - watch
  - create
  - delete
- apiGroups:
  - kubeflow.org
  resources:
  - pytorchjobs
  verbs:
  - get
  - list
  - watch
  - create
  - delete
- apiGroups:
  - trainer.kubeflow.org
  resources:
  - trainjobs
  verbs:
  - get
  - list
  - watch
  - create
  - delete
- apiGroups:
  - ray.io
  resources:
  - rayjobs
  verbs:
  - get
  - list
  - watch
  - create
  - delete
- apiGroups:
  - ''
  resources:
  - pods
  verbs:
  - list
  - watch
  - patch
  - delete
- apiGroups:
  - ''
  resources:
  - pods/log
  verbs:
  - get
- apiGroups:
  - ''
  resources:
  - events
  verbs:
  - list
  - watch
- apiGroups:
  - ''
  resources:
  - secrets
  verbs:
  - get
  - create
  - patch
  - delete
- apiGroups:
  - ''
  resources:
  - configmaps
  verbs:
  - list
  - watch
  - patch
  resourceNames:
  - abruzzi-fence
- apiGroups:
  - ''
  resources:
  - configmaps
  verbs:
  - create
- apiGroups:
  - networking.k8s.io
  resources:
  - networkpolicies
  verbs:
  - create
  - delete
- apiGroups:
  - trainer.kubeflow.org
  resources:
  - trainingruntimes
  verbs:
  - get
  - create
  - patch
- apiGroups:
  - kueue.x-k8s.io
  resources:
  - workloads
  verbs:
  - list
  - watch
- apiGroups:
  - kueue.x-k8s.io
  resources:
  - localqueues
  verbs:
  - create
  - patch
  - delete
{{- end -}}
{{- define "abruzzi.clusterRules" -}}
- apiGroups:
  - apiextensions.k8s.io
  resources:
  - customresourcedefinitions
  verbs:
  - get
  resourceNames:
  - trainjobs.trainer.kubeflow.org
- apiGroups:
  - kueue.x-k8s.io
  resources:
  - clusterqueues
  verbs:
  - get
  - list
  - create
  - patch
  - delete
- apiGroups:
  - kueue.x-k8s.io
  resources:
  - resourceflavors
  verbs:
  - list
  - create
  - patch
  - delete
- apiGroups:
  - kueue.x-k8s.io
  resources:
  - topologies
  verbs:
  - list
  - create
  - patch
  - delete
- apiGroups:
  - kueue.x-k8s.io
  resources:
  - localqueues
  verbs:
  - list
- apiGroups:
  - abruzzi.io
  resources:
  - runs
  verbs:
  - get
  - list
  - watch
- apiGroups:
  - abruzzi.io
  resources:
  - runs/status
  verbs:
  - patch
- apiGroups:
  - ''
  resources:
  - namespaces
  verbs:
  - list
  - watch
- apiGroups:
  - visibility.kueue.x-k8s.io
  resources:
  - clusterqueues/pendingworkloads
  verbs:
  - get
- apiGroups:
  - ''
  resources:
  - nodes
  verbs:
  - get
  - list
  - watch
  - patch
{{- end -}}
{{- define "abruzzi.leaseRules" -}}
- apiGroups:
  - coordination.k8s.io
  resources:
  - leases
  verbs:
  - get
  - list
  - watch
{{- end -}}
{{- define "abruzzi.sandboxRules" -}}
- apiGroups:
  - ''
  resources:
  - pods
  verbs:
  - get
  - list
  - create
  - delete
- apiGroups:
  - ''
  resources:
  - pods/exec
  verbs:
  - get
  - create
{{- end -}}
