package oncekeyhttp_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"time"

	oncekey "github.com/oncekey/oncekey/engine-ffi/go"
	"github.com/oncekey/oncekey/engine-ffi/go/oncekeyhttp"
)

// open is an engine in a directory of its own, and what removes both.
func open() (*oncekey.Engine, func()) {
	directory, err := os.MkdirTemp("", "oncekey-example")
	if err != nil {
		log.Fatal(err)
	}
	engine, err := oncekey.Open(directory, nil)
	if err != nil {
		log.Fatal(err)
	}
	return engine, func() {
		engine.Close()
		os.RemoveAll(directory)
	}
}

// send prints the answer to a request with a key, and whether it is a replay by the marker of Stripe's contract.
func send(server *httptest.Server, method, path, key string) {
	request, err := http.NewRequest(method, server.URL+path, strings.NewReader("2 apples"))
	if err != nil {
		log.Fatal(err)
	}
	if key != "" {
		request.Header.Set("Idempotency-Key", key)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		log.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		log.Fatal(err)
	}
	if response.StatusCode >= 400 {
		body = nil
	}
	answer := fmt.Sprintf("%d %s%s", response.StatusCode, body, response.Header.Get("Idempotent-Replayed"))
	fmt.Printf("%s %s %s: %s\n", method, path, key, strings.TrimSpace(answer))
}

func Example() {
	engine, end := open()
	defer end()

	orders := 0
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		orders++
		w.WriteHeader(http.StatusCreated)
		fmt.Fprintf(w, "order %d", orders)
	})
	server := httptest.NewServer(oncekeyhttp.New(engine, oncekeyhttp.Options{Required: true}).Wrap(handler))
	defer server.Close()

	for _, key := range []string{"a", "a", "b", ""} {
		send(server, "POST", "/orders", key)
	}
	// Output:
	// POST /orders a: 201 order 1
	// POST /orders a: 201 order 1
	// POST /orders b: 201 order 2
	// POST /orders : 400
}

// A server that stops: Shutdown waits for every handler, also for those whose clients are gone, and stores their
// responses. Then the engine is closed.
func ExampleMiddleware_Wrap_shutdown() {
	engine, end := open()
	defer end()

	started, finish := make(chan struct{}), make(chan struct{})
	slow := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(started)
		<-finish
		w.WriteHeader(http.StatusCreated)
	})
	server := httptest.NewServer(oncekeyhttp.New(engine, oncekeyhttp.Options{}).Wrap(slow))
	defer server.Close()
	server.Config.RegisterOnShutdown(func() { close(finish) })

	ctx, leave := context.WithCancel(context.Background())
	request, _ := http.NewRequestWithContext(ctx, "POST", server.URL, nil)
	request.Header.Set("Idempotency-Key", "a")
	go func() {
		<-started
		leave()
	}()
	_, err := http.DefaultClient.Do(request)
	fmt.Println("the client left:", errors.Is(err, context.Canceled))

	if err := server.Config.Shutdown(context.Background()); err != nil {
		log.Fatal(err)
	}
	stats, err := engine.Stats()
	fmt.Println("in flight:", stats.InFlight, "completed:", stats.Completed, err)
	if err := engine.Close(); err != nil {
		log.Fatal(err)
	}
	// Output:
	// the client left: true
	// in flight: 0 completed: 1 <nil>
}

// Routes of a ServeMux have middlewares of their own, which share an engine: path values and patterns reach the
// handler, and a key is compared with the path that the client sent.
func ExampleMiddleware_Wrap_methodPatterns() {
	engine, end := open()
	defer end()
	payments := oncekeyhttp.New(engine, oncekeyhttp.Options{Required: true, Recovery: oncekeyhttp.Retry})
	notes := oncekeyhttp.New(engine, oncekeyhttp.Options{TTL: time.Hour, DropHeaders: []string{"Set-Cookie"}})

	runs := 0
	say := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		runs++
		fmt.Fprintf(w, "run %d of %s for %s", runs, r.Pattern, r.PathValue("id"))
	})
	mux := http.NewServeMux()
	mux.Handle("POST /payments/{id}", payments.Wrap(say))
	mux.Handle("PUT /notes/{id}", notes.Wrap(say))
	mux.Handle("GET /notes/{id}", say)
	server := httptest.NewServer(mux)
	defer server.Close()

	send(server, "POST", "/payments/7", "a")
	send(server, "POST", "/payments/7", "a")
	send(server, "POST", "/payments/8", "a")
	send(server, "POST", "/payments/8", "")
	send(server, "PUT", "/notes/7", "b")
	send(server, "PUT", "/notes/7", "b")
	send(server, "DELETE", "/notes/7", "c")
	send(server, "GET", "/notes/7", "b")
	// Output:
	// POST /payments/7 a: 200 run 1 of POST /payments/{id} for 7
	// POST /payments/7 a: 200 run 1 of POST /payments/{id} for 7
	// POST /payments/8 a: 409
	// POST /payments/8 : 400
	// PUT /notes/7 b: 200 run 2 of PUT /notes/{id} for 7
	// PUT /notes/7 b: 200 run 2 of PUT /notes/{id} for 7
	// DELETE /notes/7 c: 405
	// GET /notes/7 b: 200 run 3 of GET /notes/{id} for 7
}

// Handlers may be nested: of two middlewares around one handler the outer one holds the key, and a mount whose prefix is
// stripped stays part of the request.
func ExampleMiddleware_Wrap_nested() {
	engine, end := open()
	defer end()
	all := oncekeyhttp.New(engine, oncekeyhttp.Options{})
	strict := oncekeyhttp.New(engine, oncekeyhttp.Options{Required: true})

	runs := 0
	inner := http.NewServeMux()
	inner.Handle("POST /orders", strict.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		runs++
		fmt.Fprintf(w, "run %d at %s", runs, r.URL.Path)
	})))
	outer := http.NewServeMux()
	outer.Handle("/v1/", all.Wrap(http.StripPrefix("/v1", inner)))
	outer.Handle("/v2/", all.Wrap(http.StripPrefix("/v2", inner)))
	server := httptest.NewServer(outer)
	defer server.Close()

	send(server, "POST", "/v1/orders", "a")
	send(server, "POST", "/v1/orders", "a")
	send(server, "POST", "/v2/orders", "a")
	send(server, "POST", "/v2/orders", "b")
	send(server, "POST", "/v2/orders", "")
	// Output:
	// POST /v1/orders a: 200 run 1 at /orders
	// POST /v1/orders a: 200 run 1 at /orders
	// POST /v2/orders a: 409
	// POST /v2/orders b: 200 run 2 at /orders
	// POST /v2/orders : 400
}

func ExampleStripe() {
	engine, end := open()
	defer end()
	middleware := oncekeyhttp.New(engine, oncekeyhttp.Options{Contract: oncekeyhttp.Stripe()})
	server := httptest.NewServer(middleware.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "charged, replayed: ")
	})))
	defer server.Close()

	send(server, "POST", "/v1/charges", "a")
	send(server, "POST", "/v1/charges", "a")
	send(server, "POST", "/v1/refunds", "a")
	// Output:
	// POST /v1/charges a: 200 charged, replayed:
	// POST /v1/charges a: 200 charged, replayed: true
	// POST /v1/refunds a: 400
}

func ExampleMiddleware_Admin() {
	engine, end := open()
	defer end()
	middleware := oncekeyhttp.New(engine, oncekeyhttp.Options{})
	operatorsOnly := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			// Yours: a verified token of an operator, a client certificate, ...
			if user, password, _ := r.BasicAuth(); user != "operator" || password != "secret" {
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			next.ServeHTTP(w, r)
		})
	}
	mux := http.NewServeMux()
	mux.Handle("/admin/", http.StripPrefix("/admin", middleware.Admin(operatorsOnly, oncekeyhttp.AdminOptions{})))

	for _, password := range []string{"guessed", "secret"} {
		request := httptest.NewRequest("GET", "/admin/keys?key=order-4711", nil)
		request.SetBasicAuth("operator", password)
		answer := httptest.NewRecorder()
		mux.ServeHTTP(answer, request)
		fmt.Println(strings.TrimSpace(fmt.Sprint(answer.Code, " ", answer.Body)))
	}
	// Output:
	// 401
	// 200 {"state":"absent"}
}
