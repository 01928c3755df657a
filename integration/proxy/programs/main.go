// Programs that the tests of the front door need beside kubectl, in one file: Kubernetes' own sample of an aggregated API
// server, and a controller made of client-go's parts. The first argument says which.
package main

import (
	"fmt"
	"os"

	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/component-base/cli"
	"k8s.io/sample-apiserver/pkg/cmd/server"
)

func main() {
	if len(os.Args) > 1 {
		program := os.Args[1]
		os.Args = append(os.Args[:1], os.Args[2:]...)
		switch program {
		case "sample-apiserver":
			options := server.NewWardleServerOptions(os.Stdout, os.Stderr)
			os.Exit(cli.Run(server.NewCommandStartWardleServer(genericapiserver.SetupSignalContext(), options, false)))
		case "controller":
			os.Exit(controller())
		}
	}
	fmt.Fprintf(os.Stderr, "usage: %s sample-apiserver|controller [FLAG...]\n", os.Args[0])
	os.Exit(2)
}
