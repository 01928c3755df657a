package main

import (
	"bufio"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// record is one call for the audit log.
type record struct {
	Time    time.Time
	User    *owner
	Cluster string
	Verb    string
	Method  string
	Path    string
	Status  int
	Bytes   int64
	Took    time.Duration
	Client  string
}

// audit appends JSON lines to a buffer that is written out twice a second.
type audit struct {
	mutex sync.Mutex
	out   *bufio.Writer
	line  []byte
}

func openAudit(path string) (*audit, error) {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	a := &audit{out: bufio.NewWriterSize(file, 256<<10)}
	go func() {
		for range time.Tick(500 * time.Millisecond) {
			a.mutex.Lock()
			_ = a.out.Flush()
			a.mutex.Unlock()
		}
	}()
	return a, nil
}

func (a *audit) write(r *record) {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	b := append(a.line[:0], `{"event":"call_ended","time":`...)
	b = strconv.AppendFloat(b, float64(r.Time.UnixMilli())/1000, 'f', 3, 64)
	if r.User != nil {
		b = appendString(b, `,"user":`, r.User.User)
		b = appendString(b, `,"user_uid":`, r.User.UID)
	}
	b = appendString(b, `,"cluster":`, r.Cluster)
	b = appendString(b, `,"verb":`, r.Verb)
	b = appendString(b, `,"method":`, r.Method)
	b = appendString(b, `,"path":`, r.Path)
	b = append(b, `,"status":`...)
	b = strconv.AppendInt(b, int64(r.Status), 10)
	b = append(b, `,"bytes_out":`...)
	b = strconv.AppendInt(b, r.Bytes, 10)
	b = append(b, `,"duration_ms":`...)
	b = strconv.AppendFloat(b, float64(r.Took.Microseconds())/1000, 'f', 2, 64)
	b = appendString(b, `,"client":`, r.Client)
	b = append(b, '}', '\n')
	a.line = b
	_, _ = a.out.Write(b)
}

func appendString(b []byte, name, value string) []byte {
	b = append(b, name...)
	return strconv.AppendQuote(b, value)
}

// figures are a histogram per verb and class of status, and a count of bytes, as a Prometheus client keeps them.
type figures struct {
	children sync.Map
	bytes    atomic.Int64
}

type label struct {
	verb  string
	class int
}

type histogram struct {
	buckets [16]atomic.Int64
	micros  atomic.Int64
}

var bounds = [...]time.Duration{
	time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond, 10 * time.Millisecond, 25 * time.Millisecond,
	50 * time.Millisecond, 100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond, time.Second,
	2500 * time.Millisecond, 5 * time.Second, 10 * time.Second, time.Minute, 10 * time.Minute,
}

func newFigures() *figures { return &figures{} }

func (f *figures) observe(verb string, status int, took time.Duration, written int64) {
	key := label{verb, status / 100}
	found, ok := f.children.Load(key)
	if !ok {
		found, _ = f.children.LoadOrStore(key, &histogram{})
	}
	child := found.(*histogram)
	place := 0
	for place < len(bounds) && took > bounds[place] {
		place++
	}
	child.buckets[place].Add(1)
	child.micros.Add(took.Microseconds())
	f.bytes.Add(written)
}

// registry holds the calls under way, so that they could be cut.
type registry struct {
	mutex sync.Mutex
	open  map[*call]struct{}
}

type call struct{ user, cluster string }

func newRegistry() *registry { return &registry{open: map[*call]struct{}{}} }

func (r *registry) begin(user, cluster string) *call {
	c := &call{user, cluster}
	r.mutex.Lock()
	r.open[c] = struct{}{}
	r.mutex.Unlock()
	return c
}

func (r *registry) end(c *call) {
	r.mutex.Lock()
	delete(r.open, c)
	r.mutex.Unlock()
}
