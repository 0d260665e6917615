package oncekeyhttp_test

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"

	oncekey "github.com/oncekey/oncekey/engine-ffi/go"
	"github.com/oncekey/oncekey/engine-ffi/go/oncekeyhttp"
)

func Example() {
	directory, err := os.MkdirTemp("", "oncekey-example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(directory)
	engine, err := oncekey.Open(directory, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer engine.Close()

	orders := 0
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		orders++
		w.WriteHeader(http.StatusCreated)
		fmt.Fprintf(w, "order %d", orders)
	})
	server := httptest.NewServer(oncekeyhttp.New(engine, oncekeyhttp.Options{Required: true}).Wrap(handler))
	defer server.Close()

	for _, key := range []string{"a", "a", "b", ""} {
		request, err := http.NewRequest("POST", server.URL+"/orders", strings.NewReader("2 apples"))
		if err != nil {
			log.Fatal(err)
		}
		if key != "" {
			request.Header.Set("X-Idempotency-Key", key)
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			log.Fatal(err)
		}
		body, err := io.ReadAll(response.Body)
		if err != nil {
			log.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode == http.StatusCreated {
			fmt.Printf("%s\n", body)
		} else {
			fmt.Println(response.Status)
		}
	}
	// Output:
	// order 1
	// order 1
	// order 2
	// 400 Bad Request
}
