package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"os"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

// report is what the test reads, as one JSON object on standard output.
type report struct {
	Created   int      `json:"created"`
	Missed    []string `json:"missed"`    // created or deleted, and the informer never said so
	Different []string `json:"different"` // in the informer's store and not in a list of now, or the other way round
	Leaders   []string `json:"leaders"`   // in the order in which they led
	First     int64    `json:"first_discovery_requests"`
	Second    int64    `json:"second_discovery_requests"`
	Kinds     int      `json:"kinds"`
}

type counting struct {
	next  http.RoundTripper
	count *atomic.Int64
}

func (c counting) RoundTrip(request *http.Request) (*http.Response, error) {
	c.count.Add(1)
	return c.next.RoundTrip(request)
}

// controller does what a controller does in its life: discovers, wins a lease, follows pods while they come and go.
func controller() int {
	kubeconfig := flag.String("kubeconfig", "", "whom to talk to")
	namespace := flag.String("namespace", "default", "where pods come and go")
	during := flag.Duration("for", 20*time.Second, "how long they do")
	flag.Parse()
	found, err := run(*kubeconfig, *namespace, *during)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if err := json.NewEncoder(os.Stdout).Encode(found); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func run(kubeconfig, namespace string, during time.Duration) (*report, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, err
	}
	var requests atomic.Int64
	config.ContentType = "application/vnd.kubernetes.protobuf"
	config.QPS, config.Burst = 200, 400
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { return counting{next, &requests} })
	clients, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	found := &report{Missed: []string{}, Different: []string{}}
	ctx, cancel := context.WithTimeout(context.Background(), during+2*time.Minute)
	defer cancel()
	if err := discover(config, &requests, found); err != nil {
		return nil, fmt.Errorf("discovery: %w", err)
	}
	if err := lead(ctx, clients, namespace, found); err != nil {
		return nil, fmt.Errorf("leader election: %w", err)
	}
	if err := follow(ctx, clients, namespace, during, found); err != nil {
		return nil, fmt.Errorf("informer: %w", err)
	}
	return found, nil
}

// discover asks for all kinds twice; the second time its cache answers.
func discover(config *rest.Config, requests *atomic.Int64, found *report) error {
	plain, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		return err
	}
	cached := memory.NewMemCacheClient(plain)
	for _, count := range []*int64{&found.First, &found.Second} {
		before := requests.Load()
		_, lists, err := cached.ServerGroupsAndResources()
		if err != nil {
			return err
		}
		found.Kinds = 0
		for _, list := range lists {
			found.Kinds += len(list.APIResources)
		}
		*count = requests.Load() - before
	}
	return nil
}

// lead lets two candidates take turns: the second leads when the first lets go.
func lead(ctx context.Context, clients kubernetes.Interface, namespace string, found *report) error {
	var lock sync.Mutex
	for _, name := range []string{"first", "second"} {
		term, resign := context.WithCancel(ctx)
		led := make(chan struct{})
		elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
			Lock: &resourcelock.LeaseLock{
				LeaseMeta:  metav1.ObjectMeta{Name: "controller", Namespace: namespace},
				Client:     clients.CoordinationV1(),
				LockConfig: resourcelock.ResourceLockConfig{Identity: name},
			},
			LeaseDuration: 6 * time.Second, RenewDeadline: 4 * time.Second, RetryPeriod: 500 * time.Millisecond,
			ReleaseOnCancel: true,
			Callbacks: leaderelection.LeaderCallbacks{
				OnStartedLeading: func(context.Context) {
					lock.Lock()
					defer lock.Unlock()
					found.Leaders = append(found.Leaders, name)
					close(led)
				},
				OnStoppedLeading: func() {},
			},
		})
		if err != nil {
			resign()
			return err
		}
		ended := make(chan struct{})
		go func() { defer close(ended); elector.Run(term) }()
		select {
		case <-led:
			time.Sleep(1200 * time.Millisecond) // two renewals
		case <-ctx.Done():
		}
		resign()
		<-ended
	}
	return ctx.Err()
}

// follow lets pods come, change and go, and compares what an informer heard with what happened.
func follow(ctx context.Context, clients kubernetes.Interface, namespace string, during time.Duration, found *report) error {
	heard := &ledger{added: map[string]bool{}, deleted: map[string]bool{}}
	factory := informers.NewSharedInformerFactoryWithOptions(clients, 0, informers.WithNamespace(namespace),
		informers.WithTweakListOptions(func(o *metav1.ListOptions) { o.LabelSelector = "churn" }))
	informer := factory.Core().V1().Pods().Informer()
	if _, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { heard.note(heard.added, o) },
		DeleteFunc: func(o any) { heard.note(heard.deleted, o) },
	}); err != nil {
		return err
	}
	stop := make(chan struct{})
	defer factory.Shutdown()
	defer close(stop)
	factory.Start(stop)
	if !cache.WaitForCacheSync(ctx.Done(), informer.HasSynced) {
		return fmt.Errorf("the first list did not come")
	}
	pods := clients.CoreV1().Pods(namespace)
	now := int64(0)
	alive := []string{}
	gone := []string{}
	for until := time.Now().Add(during); time.Now().Before(until); found.Created++ {
		name := fmt.Sprintf("churn-%04d", found.Created)
		if _, err := pods.Create(ctx, pending(name), metav1.CreateOptions{}); err != nil {
			return err
		}
		alive = append(alive, name)
		if _, err := pods.Patch(ctx, name, types.StrategicMergePatchType, []byte(`{"metadata":{"labels":{"churn":"b"}}}`), metav1.PatchOptions{}); err != nil {
			return err
		}
		if len(alive) > 20 {
			if err := pods.Delete(ctx, alive[0], metav1.DeleteOptions{GracePeriodSeconds: &now}); err != nil {
				return err
			}
			gone, alive = append(gone, alive[0]), alive[1:]
		}
		time.Sleep(20 * time.Millisecond)
	}
	_ = wait.PollUntilContextTimeout(ctx, 50*time.Millisecond, 10*time.Second, true, func(context.Context) (bool, error) {
		found.Missed = heard.missed(alive, gone)
		return len(found.Missed) == 0, nil
	})
	list, err := pods.List(ctx, metav1.ListOptions{LabelSelector: "churn"})
	if err != nil {
		return err
	}
	versions := map[string]string{}
	for _, pod := range list.Items {
		versions[pod.Name] = pod.ResourceVersion
	}
	for _, object := range informer.GetStore().List() {
		pod := object.(*corev1.Pod)
		if versions[pod.Name] != pod.ResourceVersion {
			found.Different = append(found.Different, pod.Name)
		}
		delete(versions, pod.Name)
	}
	for name := range versions {
		found.Different = append(found.Different, name)
	}
	return pods.DeleteCollection(ctx, metav1.DeleteOptions{GracePeriodSeconds: &now}, metav1.ListOptions{LabelSelector: "churn"})
}

// pending is a pod that no scheduler takes.
func pending(name string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"churn": "a"}},
		Spec: corev1.PodSpec{
			SchedulerName: "nobody",
			Containers:    []corev1.Container{{Name: "c", Image: "herdsman.dev/none:1"}},
		},
	}
}

// ledger is what an informer said.
type ledger struct {
	lock           sync.Mutex
	added, deleted map[string]bool
}

func (l *ledger) note(where map[string]bool, object any) {
	key, err := cache.DeletionHandlingMetaNamespaceKeyFunc(object)
	if err != nil {
		panic(err)
	}
	_, name, _ := cache.SplitMetaNamespaceKey(key)
	l.lock.Lock()
	defer l.lock.Unlock()
	where[name] = true
}

func (l *ledger) missed(alive, gone []string) []string {
	l.lock.Lock()
	defer l.lock.Unlock()
	missed := []string{}
	for _, name := range append(append([]string{}, alive...), gone...) {
		if !l.added[name] {
			missed = append(missed, name+" added")
		}
	}
	for _, name := range gone {
		if !l.deleted[name] {
			missed = append(missed, name+" deleted")
		}
	}
	sort.Strings(missed)
	return missed
}
