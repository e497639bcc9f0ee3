// Helm 3.2.0, the oldest release that the chart supports, with a newer golang.org/x/sys: the original does not build with
// current releases of Go.
module kuik.test/helm-3.2

go 1.26

require (
	golang.org/x/sys v0.30.0
	helm.sh/helm/v3 v3.2.0
)

replace (
	github.com/Azure/go-autorest => github.com/Azure/go-autorest v13.3.2+incompatible
	github.com/docker/distribution => github.com/docker/distribution v0.0.0-20191216044856-a8371794149d
	vbom.ml/util => github.com/fvbommel/util v0.0.0-20180919145318-efcd4e0f9787
)
