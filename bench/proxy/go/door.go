package main

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"net"
	"net/http"
	"net/http/httputil"
	"strings"
	"sync"
	"time"
)

// owner is who a token belongs to, with the identity headers ready to be set.
type owner struct {
	Hash     string     `json:"hash"`
	Identity [][]string `json:"identity"` // name, values...
	User     string     `json:"user"`
	UID      string     `json:"uid"`

	sum     [sha256.Size]byte
	headers []header
}

type header struct {
	name   string
	values []string
}

var nobody owner

func (o *owner) prepare() error {
	sum, err := hex.DecodeString(o.Hash)
	if err != nil || len(sum) != sha256.Size {
		return errors.New("the hash is no SHA-256")
	}
	copy(o.sum[:], sum)
	for _, line := range o.Identity {
		o.headers = append(o.headers, header{http.CanonicalHeaderKey(line[0]), line[1:]})
	}
	return nil
}

// door authenticates, decides, impersonates, relays, counts and writes down each call.
type door struct {
	tokens  map[string]*owner
	audit   *audit
	figures *figures
	calls   *registry
	proxy   *httputil.ReverseProxy
	prefix  string
}

func (d *door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	began := time.Now()
	rest, found := strings.CutPrefix(r.URL.Path, d.prefix)
	cluster, inside, _ := strings.Cut(rest, "/")
	who := d.authenticate(r.Header.Get("Authorization"))
	counted := &writer{ResponseWriter: w}
	switch {
	case !found || cluster == "":
		http.Error(counted, "no such path", http.StatusNotFound)
	case who == nil:
		http.Error(counted, "the token is not valid", http.StatusUnauthorized)
	default:
		call := d.calls.begin(who.User, cluster)
		r.URL.Path = "/" + inside
		r.URL.RawPath = ""
		impersonate(r.Header, who)
		d.proxy.ServeHTTP(counted, r)
		d.calls.end(call)
	}
	took := time.Since(began)
	verb := verbOf(r)
	d.figures.observe(verb, counted.status, took, counted.written)
	d.audit.write(&record{
		Time: began, User: who, Cluster: cluster, Verb: verb, Method: r.Method, Path: r.URL.Path, Status: counted.status,
		Bytes: counted.written, Took: took, Client: host(r.RemoteAddr),
	})
}

// authenticate finds the owner of "Bearer hm_<name>_<secret>".
func (d *door) authenticate(value string) *owner {
	credential, ok := strings.CutPrefix(value, "Bearer hm_")
	if !ok {
		return nil
	}
	name, secret, _ := strings.Cut(credential, "_")
	sum := sha256.Sum256([]byte(secret))
	who, known := d.tokens[name]
	if !known {
		who = &nobody
	}
	// Compared for an unknown name too, so that time says nothing about names.
	if subtle.ConstantTimeCompare(sum[:], who.sum[:]) != 1 || !known {
		return nil
	}
	return who
}

// impersonate takes off whatever the client said of itself and says who it is.
func impersonate(h http.Header, who *owner) {
	for name := range h {
		if strings.HasPrefix(name, "Impersonate-") || strings.HasPrefix(name, "X-Remote-") {
			delete(h, name)
		}
	}
	for _, line := range who.headers {
		h[line.name] = line.values
	}
}

func rewrite(address, credential string) func(*httputil.ProxyRequest) {
	values := []string{credential}
	return func(p *httputil.ProxyRequest) {
		p.Out.URL.Scheme = "https"
		p.Out.URL.Host = address
		p.Out.Host = "kubernetes"
		p.Out.Header["Authorization"] = values
	}
}

func verbOf(r *http.Request) string {
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		if strings.Contains(r.URL.RawQuery, "watch=true") {
			return "watch"
		}
		return "get"
	case http.MethodPost:
		return "create"
	case http.MethodPut:
		return "update"
	case http.MethodPatch:
		return "patch"
	case http.MethodDelete:
		return "delete"
	}
	return "other"
}

func host(address string) string {
	name, _, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	return name
}

// writer counts what goes to the client. Unwrap lets ReverseProxy reach Flush and Hijack.
type writer struct {
	http.ResponseWriter
	status  int
	written int64
}

func (w *writer) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

func (w *writer) Write(data []byte) (int, error) {
	n, err := w.ResponseWriter.Write(data)
	w.written += int64(n)
	return n, err
}

func (w *writer) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// buffers lends ReverseProxy its copy buffers.
type buffers struct{ pool sync.Pool }

func newBuffers() *buffers {
	return &buffers{sync.Pool{New: func() any { b := make([]byte, 32<<10); return &b }}}
}

func (b *buffers) Get() []byte  { return *(b.pool.Get().(*[]byte)) }
func (b *buffers) Put(p []byte) { b.pool.Put(&p) }
