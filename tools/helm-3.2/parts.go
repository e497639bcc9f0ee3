//go:build parts

// Package parts names the program that a test runs, so that go.mod and go.sum pin all that it is built from. Nothing
// imports it.
package parts

import _ "helm.sh/helm/v3/cmd/helm"
