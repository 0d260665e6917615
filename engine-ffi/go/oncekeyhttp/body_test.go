package oncekeyhttp

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// stalled sends the start of a request whose body does not go on, and returns the response.
func (s *server) stalled(sent string, length int) (int, string) {
	s.t.Helper()
	connection, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		s.t.Fatal(err)
	}
	defer connection.Close()
	fmt.Fprintf(connection, "POST /orders?a=1 HTTP/1.1\r\nHost: %s\r\nX-Idempotency-Key: k\r\nContent-Length: %d\r\n\r\n%s",
		s.Listener.Addr(), length, sent)
	response, err := http.ReadResponse(bufio.NewReader(connection), nil)
	if err != nil {
		s.t.Fatal(err)
	}
	defer response.Body.Close()
	problem, _ := io.ReadAll(response.Body)
	if !response.Close {
		s.t.Error("the connection stays open")
	}
	return response.StatusCode, string(problem)
}

func TestABodyThatStallsIsRefusedAndItsKeyIsUnused(t *testing.T) {
	for name, stall := range map[string]struct {
		sent        string
		idle        time.Duration
		readTimeout time.Duration
	}{
		"in the middle":              {"2 app", 20 * time.Millisecond, 0},
		"before its first byte":      {"", 20 * time.Millisecond, 0},
		"the server is less patient": {"2 app", time.Hour, 200 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			nothing := func(w http.ResponseWriter, r *http.Request) {}
			s := serveWith(t, Options{BodyIdle: stall.idle}, nothing, stall.readTimeout)
			status, problem := s.stalled(stall.sent, 8)
			s.refused(answer{status: status, body: problem}, http.StatusRequestTimeout, "idempotency_body_timeout")
			s.ran(0)
			if stats := s.middleware.Stats(); stats.BodyRefused != 1 || stats.BufferedBytes != 0 {
				t.Fatalf("%+v", stats)
			}
			if got := s.post("k", "another body"); got.status != http.StatusOK {
				t.Fatal(got)
			}
			s.ran(1)
		})
	}
}

func TestAHandlerMayRunLongerThanABodyMayStall(t *testing.T) {
	const idle = time.Second
	var outer error
	middleware := New(openEngine(t), Options{BodyIdle: idle, Logger: quiet()})
	wrapped := middleware.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(idle + idle/2)
	}))
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		wrapped.ServeHTTP(w, r)
		outer = r.Context().Err()
	}))
	defer s.Close()
	request, _ := http.NewRequest("POST", s.URL, strings.NewReader("2 apples"))
	request.Header.Set("X-Idempotency-Key", "k")
	response, err := s.Client().Do(request)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != http.StatusOK || outer != nil {
		t.Fatal(response.StatusCode, outer)
	}
}

func TestBodiesTogetherStayWithinTheirBudget(t *testing.T) {
	running, finish := make(chan bool), make(chan bool)
	options := Options{MaxRequestBody: 8192, MaxBuffered: 8192}
	s := serve(t, options, func(w http.ResponseWriter, r *http.Request) {
		running <- true
		<-finish
	})
	large := strings.Repeat("x", 8192)
	done := make(chan answer)
	go func() { done <- s.post("first", large) }()
	<-running
	if stats := s.middleware.Stats(); stats.BufferedBytes != 8192 {
		t.Fatalf("%+v", stats)
	}
	refused := s.post("k", "2 apples")
	s.refused(refused, http.StatusServiceUnavailable, "idempotency_overloaded")
	if refused.header.Get("Retry-After") != "1" {
		t.Fatal(refused.header)
	}
	// An announced length takes no memory, and the server does not wait for bytes that the client does
	// not send.
	status, problem := s.stalled("2", 8192)
	s.refused(answer{status: status, body: problem}, http.StatusServiceUnavailable, "idempotency_overloaded")
	finish <- true
	<-done
	go func() { done <- s.post("k", "2 apples") }()
	<-running
	finish <- true
	if got := <-done; got.status != http.StatusOK {
		t.Fatal(got)
	}
	s.ran(2)
	s.until(func() bool { return s.middleware.Stats().BufferedBytes == 0 })
	if stats := s.middleware.Stats(); stats.BodyOverloaded != 2 || stats.BodyRefused != 0 {
		t.Fatalf("%+v", stats)
	}
}

func TestBodiesOfEveryLengthAreReadWhole(t *testing.T) {
	middleware := New(openEngine(t), Options{MaxRequestBody: 10_000, Logger: quiet()})
	echo := middleware.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) }))
	for _, length := range []int{0, 1, 4095, 4096, 4097, 8192, 9_999, 10_000, 10_001} {
		text := strings.Repeat("x", length)
		for _, announced := range []int64{int64(length), -1, 0, 5} {
			request := httptest.NewRequest("POST", "/", io.MultiReader(strings.NewReader(text)))
			request.ContentLength = announced
			request.Header.Set("X-Idempotency-Key", fmt.Sprint(length, announced))
			got := httptest.NewRecorder()
			echo.ServeHTTP(got, request)
			if length > 10_000 {
				if got.Code != http.StatusRequestEntityTooLarge {
					t.Error(length, announced, got.Code)
				}
			} else if got.Body.String() != text {
				t.Error(length, announced, got.Code, got.Body.Len())
			}
		}
	}
	if held := middleware.Stats().BufferedBytes; held != 0 {
		t.Fatal(held)
	}
}

func TestARequestMadeInAHandlerUnderAnotherKeyIsAnOperationOfItsOwn(t *testing.T) {
	engine := openEngine(t)
	middleware := New(engine, Options{Logger: quiet()})
	single := 0
	orders := middleware.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		single++
		io.WriteString(w, "ordered")
	}))
	batch := middleware.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for range 2 {
			request := httptest.NewRequestWithContext(r.Context(), "POST", "/orders", strings.NewReader("2 apples"))
			request.Header.Set("X-Idempotency-Key", "part")
			got := httptest.NewRecorder()
			orders.ServeHTTP(got, request)
			io.WriteString(w, got.Body.String()+" ")
		}
	}))
	request := httptest.NewRequest("POST", "/batch", strings.NewReader("all"))
	request.Header.Set("X-Idempotency-Key", "whole")
	got := httptest.NewRecorder()
	batch.ServeHTTP(got, request)
	if single != 1 || got.Body.String() != "ordered ordered " {
		t.Fatal(single, got.Body)
	}
}

func TestARequestThatAHandlerMakesFromItsOwnHasATargetOfItsOwn(t *testing.T) {
	for _, key := range []string{"", "whole"} {
		middleware := New(openEngine(t), Options{Logger: quiet()})
		single := middleware.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {}))
		batch := middleware.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			for _, made := range []struct {
				path   string
				status int
			}{{"/orders", 200}, {"/orders", 200}, {"/refunds", 409}} {
				request := r.Clone(r.Context())
				request.URL.Path = made.path
				request.Header.Set("X-Idempotency-Key", "part")
				got := httptest.NewRecorder()
				if single.ServeHTTP(got, request); got.Code != made.status {
					t.Error(made, got.Code, got.Body)
				}
			}
		}))
		request := httptest.NewRequest("POST", "/batch", http.NoBody)
		if key != "" {
			request.Header.Set("X-Idempotency-Key", key)
		}
		batch.ServeHTTP(httptest.NewRecorder(), request)
	}
}

func TestAMiddlewareLetsAKeyPassThatAnyMiddlewareAroundItHolds(t *testing.T) {
	engine := openEngine(t)
	plain := New(engine, Options{Logger: quiet()})
	scoped := New(engine, Options{Logger: quiet(), Scope: func(*http.Request) string { return "tenant" }})
	nothing := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {})
	request := httptest.NewRequest("POST", "/", http.NoBody)
	request.Header.Set("X-Idempotency-Key", "k")
	got := httptest.NewRecorder()
	plain.Wrap(scoped.Wrap(plain.Wrap(nothing))).ServeHTTP(got, request)
	if got.Code != http.StatusOK {
		t.Fatal(got.Code, got.Body)
	}
}

func TestTwoMiddlewaresAroundOneRequestAreOne(t *testing.T) {
	middleware := New(openEngine(t), Options{Logger: quiet()})
	runs := 0
	twice := middleware.Wrap(middleware.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		runs++
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s, attempt %d", body, FromContext(r.Context()).Number)
	})))
	for range 2 {
		request := httptest.NewRequest("POST", "/", strings.NewReader("2 apples"))
		request.Header.Set("X-Idempotency-Key", "k")
		got := httptest.NewRecorder()
		twice.ServeHTTP(got, request)
		if runs != 1 || got.Body.String() != "2 apples, attempt 1" {
			t.Fatal(runs, got.Code, got.Body)
		}
	}
}

func TestAClientThatLeavesBeforeTheHandlerStartsLeavesItsKeyFree(t *testing.T) {
	s := serve(t, Options{}, func(w http.ResponseWriter, r *http.Request) {})
	gone, leave := context.WithCancel(context.Background())
	leave()
	request := httptest.NewRequestWithContext(gone, "POST", s.URL+"/orders?a=1", strings.NewReader("2 apples"))
	request.Header.Set("X-Idempotency-Key", "k")
	s.Config.Handler.ServeHTTP(httptest.NewRecorder(), request)
	before := s.runs.Load()
	s.until(func() bool {
		got := s.post("k", "2 apples")
		if got.status == http.StatusConflict {
			// The claim may still be on its way back, but it is never left behind.
			s.refused(got, http.StatusConflict, "idempotency_key_locked")
		}
		return got.status == http.StatusOK
	})
	if before > 1 || s.runs.Load() != 1 {
		t.Fatal(before, s.runs.Load())
	}
}

func TestAMiddlewareWithoutAHandlerIsRefusedAtOnce(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Fatal("no panic")
		}
	}()
	New(openEngine(t), Options{Logger: quiet()}).Wrap(nil)
}
