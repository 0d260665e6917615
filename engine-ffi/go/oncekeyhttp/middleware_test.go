package oncekeyhttp

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync"
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
	s := &server{t: t, engine: openEngine(t)}
	options.Logger = quiet()
	s.middleware = New(s.engine, options)
	s.Server = httptest.NewUnstartedServer(s.middleware.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.runs.Add(1)
		handler(w, r)
	})))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
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

// same compares answers; Date is the moment of each.
func same(t *testing.T, one, two answer) {
	t.Helper()
	one.header, two.header = one.header.Clone(), two.header.Clone()
	one.header.Del("Date")
	two.header.Del("Date")
	if !reflect.DeepEqual(one, two) {
		t.Fatalf("%+v\n%+v", one, two)
	}
}

func TestARetryGetsTheSameResponse(t *testing.T) {
	for name, handler := range map[string]http.HandlerFunc{
		"created": func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			w.Header().Add("Set-Cookie", "a=1")
			w.Header().Add("Set-Cookie", "b=2")
			w.Header().Set("Location", "/orders/7")
			w.Header().Set("Connection", "X-Hop")
			w.Header().Set("X-Hop", "not stored")
			w.WriteHeader(http.StatusCreated)
			fmt.Fprintf(w, "created %s", body)
		},
		"guessed type": func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "<html><body>hi") },
		"no type": func(w http.ResponseWriter, r *http.Request) {
			w.Header()["Content-Type"] = nil
			io.WriteString(w, "<html>")
		},
		"empty":        func(w http.ResponseWriter, r *http.Request) {},
		"no content":   func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusNoContent) },
		"server error": func(w http.ResponseWriter, r *http.Request) { http.Error(w, "down", http.StatusServiceUnavailable) },
		"timeout":      func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusRequestTimeout) },
		"flushed": func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, "one")
			w.(http.Flusher).Flush()
			io.WriteString(w, "two")
		},
		"large": func(w http.ResponseWriter, r *http.Request) { w.Write(make([]byte, 500_000)) },
		"trailers": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Trailer", "X-Declared")
			io.WriteString(w, "data")
			w.Header().Set("X-Declared", "1")
			w.Header().Set(http.TrailerPrefix+"X-Late", "2")
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, Options{}, handler)
			first := s.post("k", "2 apples")
			same(t, first, s.post("k", "2 apples"))
			s.ran(1)
			if name == "trailers" && (first.trailer.Get("X-Declared") != "1" || first.trailer.Get("X-Late") != "2") {
				t.Fatalf("%+v", first)
			}
			if first.header.Get("X-Hop") != "" && name == "created" {
				t.Fatal("a header of the connection was stored")
			}
			if name == "guessed type" && first.header.Get("Content-Type") != "text/html; charset=utf-8" {
				t.Fatal(first.header)
			}
			if stats := s.middleware.Stats(); stats != (Stats{}) {
				t.Fatalf("%+v", stats)
			}
		})
	}
}

func TestRequestsWithoutAKeyAndSafeOnesPassThrough(t *testing.T) {
	s := serve(t, Options{}, func(w http.ResponseWriter, r *http.Request) {
		if FromContext(r.Context()) != nil {
			t.Error("there is an attempt")
		}
	})
	s.post("", "x")
	s.post("", "x")
	for _, method := range []string{"GET", "HEAD", "OPTIONS"} {
		for range 2 {
			if _, err := s.send(method, "k", ""); err != nil {
				t.Fatal(err)
			}
		}
	}
	s.ran(8)
}

func TestWhatMakesAnotherRequest(t *testing.T) {
	s := serve(t, Options{}, func(w http.ResponseWriter, r *http.Request) {})
	s.post("k", "b", "Authorization", "a")
	for _, other := range []struct {
		method, body, header, value, part string
	}{
		{"PUT", "b", "Authorization", "a", "method"},
		{"POST", "c", "Authorization", "a", "body"},
		{"POST", "b", "Authorization", "A", "header authorization"},
		{"POST", "b", "Accept", "x", "header authorization"},
	} {
		got, err := s.send(other.method, "k", other.body, other.header, other.value)
		if err != nil {
			t.Fatal(err)
		}
		problem := s.refused(got, http.StatusConflict, "idempotency_key_mismatch")
		if fmt.Sprint(problem["parts"]) != "["+other.part+"]" {
			t.Error(problem["parts"], other)
		}
	}
	s.post("k", "b", "Authorization", "a", "Accept", "other")
	s.ran(1)
}

func TestADuplicateWhileTheFirstRunsIsLocked(t *testing.T) {
	running, finish := make(chan bool), make(chan bool)
	s := serve(t, Options{}, func(w http.ResponseWriter, r *http.Request) {
		running <- true
		<-finish
	})
	done := make(chan answer)
	go func() { done <- s.post("k", "b") }()
	<-running
	got := s.post("k", "b")
	problem := s.refused(got, http.StatusConflict, "idempotency_key_locked")
	if ms := problem["retryAfterMs"].(float64); ms < 100 || ms > 500 || got.header.Get("Retry-After") != "1" {
		t.Fatal(problem, got.header)
	}
	if stats := s.middleware.Stats(); stats.Running != 1 {
		t.Fatalf("%+v", stats)
	}
	finish <- true
	same(t, <-done, s.post("k", "b"))
	s.ran(1)
}

func TestAPanicLeavesTheOutcomeUnknown(t *testing.T) {
	s := serve(t, Options{}, func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "not seen")
		panic("handler")
	})
	if got, err := s.send("POST", "k", "b"); err == nil {
		t.Fatalf("answered %+v", got)
	}
	s.refused(s.post("k", "b"), http.StatusConflict, "idempotency_outcome_unknown")
	s.ran(1)
	if stats := s.middleware.Stats(); stats.Abandoned != 1 || stats.Running != 0 {
		t.Fatalf("%+v", stats)
	}
}

func TestRetryTakesOverWithTheCheckpoint(t *testing.T) {
	s := serve(t, Options{Recovery: Retry}, func(w http.ResponseWriter, r *http.Request) {
		attempt := FromContext(r.Context())
		if attempt.Number == 1 {
			if err := attempt.SaveCheckpoint(r.Context(), []byte("half way")); err != nil {
				t.Error(err)
			}
			panic("died")
		}
		fmt.Fprintf(w, "attempt %d after %s", attempt.Number, attempt.Checkpoint)
	})
	if _, err := s.send("POST", "k", "b"); err == nil {
		t.Fatal("no panic")
	}
	if got := s.post("k", "b"); got.body != "attempt 2 after half way" {
		t.Fatal(got)
	}
	if got := s.post("k", "b"); got.body != "attempt 2 after half way" {
		t.Fatal(got)
	}
	s.ran(2)
}

func TestSomeAnswersFreeTheKey(t *testing.T) {
	for _, status := range []int{http.StatusUnauthorized, http.StatusTooEarly, http.StatusTooManyRequests, http.StatusBadGateway} {
		s := serve(t, Options{}, func(w http.ResponseWriter, r *http.Request) {
			if status == http.StatusBadGateway {
				FromContext(r.Context()).NotExecuted()
			}
			w.WriteHeader(status)
			io.WriteString(w, "try again")
		})
		for range 2 {
			if got := s.post("k", "b"); got.status != status || got.body != "try again" {
				t.Fatal(got)
			}
		}
		s.ran(2)
		if stats := s.middleware.Stats(); stats.NotExecuted != 2 {
			t.Fatalf("%+v", stats)
		}
	}
}

func TestWhatIsNotStoredIsNotExecutedAgain(t *testing.T) {
	for name, handler := range map[string]http.HandlerFunc{
		"too large":    func(w http.ResponseWriter, r *http.Request) { w.Write(make([]byte, 1<<20+1)) },
		"headers, too": func(w http.ResponseWriter, r *http.Request) { w.Write(make([]byte, 1<<20)) },
		"said beforehand": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "1048577")
			w.Write(make([]byte, 1<<20+1))
		},
		"stream": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			io.WriteString(w, "data: 1\n\n")
			if err := http.NewResponseController(w).Flush(); err != nil {
				t.Error(err)
			}
			io.WriteString(w, "data: 2\n\n")
		},
		"on request": func(w http.ResponseWriter, r *http.Request) {
			FromContext(r.Context()).NotStored()
			io.WriteString(w, "as it comes")
		},
		"hijacked": func(w http.ResponseWriter, r *http.Request) {
			connection, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer connection.Close()
			io.WriteString(connection, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi")
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, Options{}, handler)
			if got := s.post("k", "b"); got.status != http.StatusOK || len(got.body) < 2 {
				t.Fatal(got.status, len(got.body))
			}
			s.refused(s.post("k", "b"), http.StatusConflict, "idempotency_response_not_stored")
			s.ran(1)
			if stats := s.middleware.Stats(); stats.NotStored != 1 || stats.CompleteFailed != 0 {
				t.Fatalf("%+v", stats)
			}
		})
	}
}

func TestAStreamIsSeenWhileItGrows(t *testing.T) {
	seen := make(chan bool)
	s := serve(t, Options{}, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
		io.WriteString(w, "first\n")
		w.(http.Flusher).Flush()
		<-seen
		io.WriteString(w, "second\n")
	})
	request, _ := http.NewRequest("POST", s.URL, nil)
	request.Header.Set("X-Idempotency-Key", "k")
	response, err := s.Client().Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	lines := bufio.NewScanner(response.Body)
	if !lines.Scan() || lines.Text() != "first" {
		t.Fatal(lines.Text())
	}
	seen <- true
	if !lines.Scan() || lines.Text() != "second" {
		t.Fatal(lines.Text())
	}
}

func TestAClientThatIsGoneDoesNotStopTheHandler(t *testing.T) {
	running, finish := make(chan bool), make(chan bool)
	s := serve(t, Options{}, func(w http.ResponseWriter, r *http.Request) {
		running <- true
		<-finish
		if r.Context().Err() != nil {
			t.Error(r.Context().Err())
		}
		io.WriteString(w, "for the retry")
	})
	leaving, leave := context.WithCancel(context.Background())
	request, _ := http.NewRequestWithContext(leaving, "POST", s.URL+"/orders?a=1", strings.NewReader("b"))
	request.Header.Set("X-Idempotency-Key", "k")
	gone := make(chan bool)
	go func() {
		if _, err := s.Client().Do(request); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		gone <- true
	}()
	<-running
	leave()
	<-gone
	finish <- true
	s.until(func() bool { return s.middleware.Stats().Running == 0 })
	if got := s.post("k", "b"); got.body != "for the retry" {
		t.Fatal(got)
	}
	s.ran(1)
}

func TestARealResponseIsSentThoughItCanNotBeStored(t *testing.T) {
	var s *server
	s = serve(t, Options{}, func(w http.ResponseWriter, r *http.Request) {
		s.engine.Close()
		io.WriteString(w, "done")
	})
	if got := s.post("k", "b"); got.body != "done" {
		t.Fatal(got)
	}
	if stats := s.middleware.Stats(); stats.CompleteFailed != 1 {
		t.Fatalf("%+v", stats)
	}
	s.refused(s.post("k", "b"), http.StatusServiceUnavailable, "idempotency_store_unavailable")
	s.ran(1)
}

func TestHeadersOfOuterHandlersAreTheirs(t *testing.T) {
	engine := openEngine(t)
	inner := New(engine, Options{}).Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Add("Vary", "Accept")
		w.Header().Set("Server", "inner")
	}))
	for n := range 2 {
		answer := httptest.NewRecorder()
		answer.Header().Set("X-Request-Id", fmt.Sprint(n))
		answer.Header().Set("Vary", "Origin")
		answer.Header().Set("Server", "outer")
		request := httptest.NewRequest("POST", "/", nil)
		request.Header.Set("X-Idempotency-Key", "k")
		inner.ServeHTTP(answer, request)
		header := answer.Header()
		if header.Get("X-Request-Id") != fmt.Sprint(n) || fmt.Sprint(header["Vary"]) != "[Origin Accept]" || header.Get("Server") != "inner" {
			t.Fatal(header)
		}
	}
}

func TestScopesKeepKeysApart(t *testing.T) {
	s := serve(t, Options{Scope: func(r *http.Request) string { return r.Header.Get("Tenant") }},
		func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Header.Get("Tenant")) })
	for range 2 {
		for _, tenant := range []string{"a", "b"} {
			if got := s.post("k", "b", "Tenant", tenant); got.body != tenant {
				t.Fatal(got)
			}
		}
	}
	s.ran(2)
}

func TestManyDuplicatesRunOnce(t *testing.T) {
	s := serve(t, Options{}, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "once") })
	var group sync.WaitGroup
	for n := range 200 {
		group.Add(1)
		go func() {
			defer group.Done()
			for {
				got, err := s.send("POST", fmt.Sprint("k", n%10), "b")
				if err != nil {
					t.Error(err)
					return
				}
				if got.status == http.StatusOK {
					return
				}
			}
		}()
	}
	group.Wait()
	s.ran(10)
}

func TestTheTargetIsWhatTheClientSent(t *testing.T) {
	for raw, expected := range map[string]string{
		"/a/b?c=%20d":               "/a/b?c=%20d",
		"/":                         "/",
		"*":                         "*",
		"http://example.org/a?b":    "/a?b",
		"http://example.org":        "/",
		"example.org:443":           "",
		"/a#fragment":               "/a",
		"/http://example.org/inner": "/http://example.org/inner",
	} {
		if got := target(&http.Request{RequestURI: raw}); got != expected {
			t.Errorf("%s: %s, not %s", raw, got, expected)
		}
	}
}
