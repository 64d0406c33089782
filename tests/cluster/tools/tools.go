//go:build tools

// Package tools keeps the packages that are built straight from their modules in go.mod.
package tools

import (
	_ "go.etcd.io/etcd/server/v3"
	_ "k8s.io/kubernetes/cmd/kubectl"
)
