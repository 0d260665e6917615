package oncekeyhttp

import (
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
)

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
		"fields that the server changes or leaves out": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Note", " two\nlines ")
			w.Header()["Not A Name"] = []string{"a"}
			w.Header().Set("X-Nul", "a\x00b")
			w.Header().Set("Trailer", "X-Late")
			io.WriteString(w, "data")
			w.Header().Set("X-Late", "two\r\nlines")
		},
		"announced": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "4")
			io.WriteString(w, "data")
		},
		"not modified": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "4")
			w.WriteHeader(http.StatusNotModified)
		},
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
			if name == "fields that the server changes or leaves out" && first.header.Get("X-Note") != "two lines" {
				t.Fatal(first.header)
			}
			if first.header.Get("X-Hop") != "" && name == "created" {
				t.Fatal("a header of the connection was stored")
			}
			if name == "guessed type" && first.header.Get("Content-Type") != "text/html; charset=utf-8" {
				t.Fatal(first.header)
			}
			s.until(func() bool { stats := s.middleware.Stats(); return stats.Running == 0 && stats.BufferedBytes == 0 })
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
		if got := originForm(raw); got != expected {
			t.Errorf("%s: %s, not %s", raw, got, expected)
		}
	}
	// Handlers outside of the middleware changed the URL.
	for _, changed := range []struct{ sent, url, expected string }{
		{"/api/a%2Fb%7C|?c=%20d", "/a%2Fb%7C|?c=%20d", "/api/a%2Fb%7C|?c=%20d"},
		{"/api", "", "/api"},
		{"/api?c", "/?c", "/api?c"},
		{"http://example.org/api/a", "http://example.org/a", "/api/a"},
		{"/a", "/b", "/a /b"},
		{"/a", "/a?c", "/a /a?c"},
		{"/a?c", "/a", "/a?c /a"},
	} {
		to, err := url.Parse(changed.url)
		if err != nil {
			t.Fatal(err)
		}
		if got := target(&http.Request{RequestURI: changed.sent, URL: to}); got != changed.expected {
			t.Errorf("%+v: %s", changed, got)
		}
	}
}

func TestEitherNameCarriesTheKeyAndBothAreRefused(t *testing.T) {
	s := serve(t, Options{}, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "once") })
	same(t, s.post("k", "b"), s.post("", "b", "Idempotency-Key", "k"))
	s.ran(1)
	s.refused(s.post("k", "b", "Idempotency-Key", "k"), http.StatusBadRequest, "idempotency_key_invalid")
	s.ran(1)
}

func TestATunnelPassesThroughUntouched(t *testing.T) {
	s := serve(t, Options{Required: true}, func(w http.ResponseWriter, r *http.Request) {
		if FromContext(r.Context()) != nil {
			t.Error("there is an attempt")
		}
	})
	for range 2 {
		if _, err := s.send("CONNECT", "k", ""); err != nil {
			t.Fatal(err)
		}
	}
	s.ran(2)
}

func TestACookieWithoutAScopeIsCountedAndLoggedOnce(t *testing.T) {
	var log strings.Builder
	nothing := func(w http.ResponseWriter, r *http.Request) {}
	s := serve(t, Options{Logger: slog.New(slog.NewTextHandler(&log, nil))}, nothing)
	for range 3 {
		s.post("k", "b", "Cookie", "session=secret")
	}
	if got := s.middleware.Stats().UnscopedCookies; got != 3 {
		t.Fatal(got)
	}
	if strings.Count(log.String(), "a cookie came") != 1 || strings.Contains(log.String(), "secret") {
		t.Fatal(log.String())
	}
	scoped := serve(t, Options{Scope: func(*http.Request) string { return "user" }}, nothing)
	scoped.post("k", "b", "Cookie", "session=secret")
	if got := scoped.middleware.Stats().UnscopedCookies; got != 0 {
		t.Fatal(got)
	}
}
