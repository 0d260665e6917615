package oncekeyhttp

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"testing"
)

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

func TestAResponseOfAnotherLengthThanAnnouncedLeavesTheOutcomeUnknown(t *testing.T) {
	for _, announced := range []string{"0", "3", "5"} {
		s := serve(t, Options{}, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", announced)
			_, err := io.WriteString(w, "data")
			if refused := announced < "4"; refused != errors.Is(err, http.ErrContentLength) {
				t.Error(announced, err)
			}
		})
		if _, err := s.send("POST", "k", "b"); announced != "0" && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Error(announced, err)
		}
		s.refused(s.post("k", "b"), http.StatusConflict, "idempotency_outcome_unknown")
		s.ran(1)
	}
}

func TestAHandlerThatGetsNoConnectionAnswersAsUsual(t *testing.T) {
	middleware := New(openEngine(t), Options{Logger: quiet()})
	tunnel := middleware.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, _, err := w.(http.Hijacker).Hijack(); !errors.Is(err, http.ErrNotSupported) {
			t.Error(err)
		}
		http.Error(w, "no tunnel", http.StatusNotImplemented)
	}))
	for range 2 {
		request := httptest.NewRequest("POST", "/", http.NoBody)
		request.Header.Set("X-Idempotency-Key", "k")
		got := httptest.NewRecorder() // gives no connection away, as HTTP/2
		tunnel.ServeHTTP(got, request)
		if got.Code != http.StatusNotImplemented || got.Body.String() != "no tunnel\n" {
			t.Fatal(got.Code, got.Body)
		}
	}
}

func TestAStatusThatTheServerRefusesIsNotStored(t *testing.T) {
	for _, status := range []int{0, 99, 1000} {
		s := serve(t, Options{}, func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(status) })
		if got, err := s.send("POST", "k", "b"); err == nil {
			t.Error(status, got)
		}
		s.refused(s.post("k", "b"), http.StatusConflict, "idempotency_outcome_unknown")
		s.ran(1)
	}
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

func TestInformationalResponsesAreNotHeldBack(t *testing.T) {
	seen := make(chan bool)
	s := serve(t, Options{}, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", "</style.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		<-seen
		w.Header().Del("Link")
		w.WriteHeader(http.StatusCreated)
		io.WriteString(w, "made")
	})
	var hints []string
	trace := &httptrace.ClientTrace{Got1xxResponse: func(code int, header textproto.MIMEHeader) error {
		hints = append(hints, fmt.Sprint(code, header["Link"]))
		close(seen)
		return nil
	}}
	traced := httptrace.WithClientTrace(context.Background(), trace)
	request, _ := http.NewRequestWithContext(traced, "POST", s.URL+"/orders?a=1", strings.NewReader("b"))
	request.Header.Set("X-Idempotency-Key", "k")
	response, err := s.Client().Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, _ := io.ReadAll(response.Body)
	if fmt.Sprint(hints) != "[103 [</style.css>; rel=preload]]" || response.StatusCode != http.StatusCreated || response.Header.Get("Link") != "" {
		t.Fatal(hints, response)
	}
	if again := s.post("k", "b"); again.status != http.StatusCreated || again.body != string(body) || again.header.Get("Link") != "" {
		t.Fatal(again)
	}
	s.ran(1)
}
