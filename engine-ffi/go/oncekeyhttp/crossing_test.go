package oncekeyhttp

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	oncekey "github.com/oncekey/oncekey/engine-ffi/go"
)

// The second of three steps; the others are in tests/http_layer/crossing.rs. This step serves a store that the Rust
// layer wrote. Then the Rust layer serves the responses that this step stores.
func TestCrossing2WithTheRustLayer(t *testing.T) {
	directory := os.Getenv("ONCEKEY_CROSSING")
	if directory == "" {
		t.Skip("engine-ffi/test.sh runs it between its Rust halves")
	}
	engine, err := oncekey.Open(directory, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer engine.Close()
	runs := 0
	handler := New(engine, Options{}).Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		runs++
		w.Header().Add("Set-Cookie", "a=1")
		w.Header().Add("Set-Cookie", "b=2")
		io.WriteString(w, "created by go")
	}))
	for key, expected := range map[string]string{"from rust": "second", "from go": "created by go"} {
		request := httptest.NewRequest("POST", "/orders?a=1&b=%20", strings.NewReader("2 apples"))
		request.Host = "shop.example"
		request.Header.Set("X-Idempotency-Key", key)
		request.Header.Set("Content-Type", "application/json")
		request.Header.Set("Authorization", "Bearer t")
		answer := httptest.NewRecorder()
		handler.ServeHTTP(answer, request)
		if answer.Code != http.StatusOK || answer.Body.String() != expected {
			t.Errorf("%s: %d %s", key, answer.Code, answer.Body)
		}
	}
	if runs != 1 {
		t.Errorf("the handler ran %d times", runs)
	}
}
