package oncekeyhttp

import (
	"encoding/json"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	oncekey "github.com/oncekey/oncekey/engine-ffi/go"
)

// server serves one handler with a middleware, and counts its runs.
type server struct {
	*httptest.Server
	t          *testing.T
	engine     *oncekey.Engine
	middleware *Middleware
	runs       atomic.Int32
}

func serve(t *testing.T, options Options, handler http.HandlerFunc) *server {
	t.Helper()
	return serveWith(t, options, handler, 0)
}

// serveWith bounds the time in which a request comes in; 0 is without a bound.
func serveWith(t *testing.T, options Options, handler http.HandlerFunc, readTimeout time.Duration) *server {
	t.Helper()
	s := &server{t: t, engine: openEngine(t)}
	if options.Logger == nil {
		options.Logger = quiet()
	}
	s.middleware = New(s.engine, options)
	s.Server = httptest.NewUnstartedServer(s.middleware.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.runs.Add(1)
		handler(w, r)
	})))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.Config.ReadTimeout = readTimeout
	s.Start()
	t.Cleanup(s.Close)
	return s
}

type answer struct {
	status  int
	header  http.Header
	body    string
	trailer http.Header
}

func (s *server) send(method, key, body string, headers ...string) (answer, error) {
	request, err := http.NewRequest(method, s.URL+"/orders?a=1", strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	if key != "" {
		request.Header.Set("X-Idempotency-Key", key)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		request.Header.Add(headers[i], headers[i+1])
	}
	response, err := s.Client().Do(request)
	if err != nil {
		return answer{}, err
	}
	defer response.Body.Close()
	read, err := io.ReadAll(response.Body)
	return answer{response.StatusCode, response.Header, string(read), response.Trailer}, err
}

func (s *server) post(key, body string, headers ...string) answer {
	s.t.Helper()
	got, err := s.send("POST", key, body, headers...)
	if err != nil {
		s.t.Fatal(err)
	}
	return got
}

// refused checks that an answer is a refusal with a code.
func (s *server) refused(got answer, status int, code string) map[string]any {
	s.t.Helper()
	var problem map[string]any
	if err := json.Unmarshal([]byte(got.body), &problem); err != nil {
		s.t.Fatal(got.body, err)
	}
	if got.status != status || problem["code"] != code {
		s.t.Fatalf("%d %s, not %d %s", got.status, got.body, status, code)
	}
	return problem
}

func (s *server) ran(times int32) {
	s.t.Helper()
	if runs := s.runs.Load(); runs != times {
		s.t.Fatalf("ran %d times, not %d", runs, times)
	}
}

func (s *server) until(reached func() bool) {
	for !reached() {
		time.Sleep(time.Millisecond)
	}
}

// same compares answers, except for Date, which is the moment of each.
func same(t *testing.T, one, two answer) {
	t.Helper()
	one.header, two.header = one.header.Clone(), two.header.Clone()
	one.header.Del("Date")
	two.header.Del("Date")
	if !reflect.DeepEqual(one, two) {
		t.Fatalf("%+v\n%+v", one, two)
	}
}

// admins asks an admin handler.
type admins struct {
	t       *testing.T
	handler http.Handler
}

func adminOf(t *testing.T, handler http.Handler) admins { return admins{t, handler} }

func (a admins) ask(method, path, body string, headers ...string) (int, map[string]any) {
	a.t.Helper()
	request := httptest.NewRequest(method, path, strings.NewReader(body))
	for i := 0; i+1 < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	recorder := httptest.NewRecorder()
	a.handler.ServeHTTP(recorder, request)
	var answer map[string]any
	json.Unmarshal(recorder.Body.Bytes(), &answer)
	return recorder.Code, answer
}

func (a admins) expect(method, path, body string, status int) map[string]any {
	a.t.Helper()
	got, answer := a.ask(method, path, body, "Authorization", "operator", "Content-Type", "application/json")
	if got != status {
		a.t.Fatalf("%s %s: %d %v", method, path, got, answer)
	}
	return answer
}

func (a admins) get(path string, status int) map[string]any {
	a.t.Helper()
	return a.expect("GET", path, "", status)
}

func (a admins) post(path, body string, status int) map[string]any {
	a.t.Helper()
	return a.expect("POST", path, body, status)
}
