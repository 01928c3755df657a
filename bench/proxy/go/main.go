// The same front door as a good Go program: net/http and httputil.ReverseProxy, nothing beyond the standard library.
//
// It reads its settings from the file named in its argument, prints {"port": N} and serves until it is ended.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"os"
	"time"
)

type settings struct {
	Backend     int               `json:"backend"`
	BackendCA   string            `json:"backend_ca"`
	Certificate string            `json:"certificate"`
	Key         string            `json:"key"`
	Credential  string            `json:"credential"`
	AuditFile   string            `json:"audit_file"`
	Tokens      map[string]*owner `json:"tokens"`
}

func main() {
	config, err := load(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	audit, err := openAudit(config.AuditFile)
	if err != nil {
		log.Fatal(err)
	}
	transport, err := newTransport(config)
	if err != nil {
		log.Fatal(err)
	}
	door := &door{
		tokens: config.Tokens, audit: audit, figures: newFigures(), calls: newRegistry(), prefix: "/k8s/clusters/",
		proxy: &httputil.ReverseProxy{
			Rewrite:       rewrite(fmt.Sprintf("127.0.0.1:%d", config.Backend), config.Credential),
			Transport:     transport,
			BufferPool:    newBuffers(),
			FlushInterval: -1,
			ErrorLog:      log.New(io.Discard, "", 0),
		},
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	server := &http.Server{
		Handler: door, IdleTimeout: 120 * time.Second, ReadHeaderTimeout: 10 * time.Second, ErrorLog: log.New(io.Discard, "", 0),
		// HTTP/1.1 on both sides, as in the other contestants.
		TLSConfig:    &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}},
		TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){},
	}
	fmt.Printf("{\"port\": %d}\n", listener.Addr().(*net.TCPAddr).Port)
	log.Fatal(server.ServeTLS(listener, config.Certificate, config.Key))
}

func load(path string) (*settings, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	config := &settings{}
	if err := json.Unmarshal(data, config); err != nil {
		return nil, err
	}
	for name, who := range config.Tokens {
		if err := who.prepare(); err != nil {
			return nil, fmt.Errorf("token %s: %w", name, err)
		}
	}
	return config, nil
}

func newTransport(config *settings) (*http.Transport, error) {
	pem, err := os.ReadFile(config.BackendCA)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no certificate", config.BackendCA)
	}
	dialer := &net.Dialer{Timeout: 5 * time.Second, KeepAlive: 15 * time.Second}
	return &http.Transport{
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			return dialer.DialContext(ctx, network, address)
		},
		TLSClientConfig:     &tls.Config{RootCAs: roots, ServerName: "localhost", NextProtos: []string{"http/1.1"}},
		TLSNextProto:        map[string]func(string, *tls.Conn) http.RoundTripper{},
		TLSHandshakeTimeout: 5 * time.Second,
		MaxIdleConns:        0,
		MaxIdleConnsPerHost: 4096,
		IdleConnTimeout:     30 * time.Second,
		// Bodies pass as they are.
		DisableCompression: true,
		WriteBufferSize:    32 << 10,
		ReadBufferSize:     32 << 10,
	}, nil
}
