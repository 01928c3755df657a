// Kubelab's one program: etcd, the control plane and the kubelet of a Kubernetes cluster in a single file.
//
// It becomes the component that its own name (a symbolic link) or else its first argument names, and from then on
// behaves as that component's official program does: same flags, same exit codes.
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	_ "time/tzdata" // CronJobs name time zones, and a test machine may have no zone files

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	kubeproxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
)

// runWith makes a component out of a command constructor. The constructor runs only when its component was asked
// for: it registers flags and metrics that the other components register as well.
func runWith(construct func() *cobra.Command) func() int {
	return func() int { return cli.Run(construct()) }
}

var components = map[string]func() int{
	"etcd": func() int {
		etcdmain.Main(os.Args) // ends the process by itself when it fails
		return 0
	},
	"kube-apiserver":          runWith(apiserver.NewAPIServerCommand),
	"kube-controller-manager": runWith(controllermanager.NewControllerManagerCommand),
	"kube-proxy":              runWith(kubeproxy.NewProxyCommand),
	"kube-scheduler":          runWith(func() *cobra.Command { return scheduler.NewSchedulerCommand() }),
	"kubelet":                 runWith(func() *cobra.Command { return kubelet.NewKubeletCommand(context.Background()) }),
}

func main() {
	if run, ok := components[filepath.Base(os.Args[0])]; ok {
		os.Exit(run())
	}
	if len(os.Args) > 1 {
		if run, ok := components[os.Args[1]]; ok {
			os.Args = os.Args[1:]
			os.Exit(run())
		}
	}
	names := make([]string, 0, len(components))
	for name := range components {
		names = append(names, name)
	}
	sort.Strings(names)
	fmt.Fprintf(os.Stderr, "usage: %s COMPONENT [FLAG...], where COMPONENT is one of: %s\n",
		filepath.Base(os.Args[0]), strings.Join(names, ", "))
	os.Exit(2)
}
