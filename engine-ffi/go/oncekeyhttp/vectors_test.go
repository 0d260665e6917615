package oncekeyhttp

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"testing/iotest"

	oncekey "github.com/oncekey/oncekey/engine-ffi/go"
	"github.com/oncekey/oncekey/engine-ffi/go/internal/teststore"
)

// The cases on which this middleware and the Rust layer must agree. The Rust tests read the same
// files.

type pair [2]string

func load(t *testing.T, name string, into any) {
	t.Helper()
	text, err := os.ReadFile("../../tests/vectors/" + name)
	if err == nil {
		err = json.Unmarshal(text, into)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func unhex(t *testing.T, digits string) []byte {
	t.Helper()
	decoded, err := hex.DecodeString(digits)
	if err != nil {
		t.Fatal(err)
	}
	return decoded
}

// latin1 is a header value as it is sent.
func latin1(text string) string {
	var value []byte
	for _, c := range text {
		value = append(value, byte(c))
	}
	return string(value)
}

func fieldsOf(pairs []pair) []Field {
	var fields []Field
	for _, pair := range pairs {
		fields = append(fields, Field{pair[0], latin1(pair[1])})
	}
	return fields
}

func TestStoredResponsesAreThoseOfTheRustLayer(t *testing.T) {
	var vectors struct {
		Responses []struct {
			Name              string
			Status            int
			Headers, Trailers []pair
			Body, Encoded     string
		}
		Invalid []struct{ Name, Encoded string }
	}
	load(t, "responses.json", &vectors)
	if len(vectors.Responses) == 0 || len(vectors.Invalid) == 0 {
		t.Fatal("no vectors")
	}
	for _, vector := range vectors.Responses {
		encoded := unhex(t, vector.Encoded)
		decoded, err := DecodeResponse(encoded)
		if err != nil {
			t.Fatal(vector.Name, err)
		}
		if decoded.Status != vector.Status || !bytes.Equal(decoded.Body, unhex(t, vector.Body)) ||
			!reflect.DeepEqual(decoded.Header, fieldsOf(vector.Headers)) ||
			!reflect.DeepEqual(decoded.Trailer, fieldsOf(vector.Trailers)) {
			t.Errorf("%s: %+v", vector.Name, decoded)
		}
		if again, err := decoded.Encode(); err != nil || !bytes.Equal(again, encoded) {
			t.Errorf("%s: %x %v", vector.Name, again, err)
		}
		header := http.Header{}
		for _, field := range decoded.Header {
			header.Add(field.Name, field.Value)
		}
		made := NewResponse(vector.Status, header, decoded.Body)
		made.Trailer = decoded.Trailer
		if again, err := made.Encode(); err != nil || !bytes.Equal(again, encoded) {
			t.Errorf("%s, made anew: %x %v", vector.Name, again, err)
		}
	}
	for _, vector := range vectors.Invalid {
		if decoded, err := DecodeResponse(unhex(t, vector.Encoded)); err == nil {
			t.Errorf("%s: %+v", vector.Name, decoded)
		}
	}
}

func openEngine(t *testing.T) *oncekey.Engine {
	t.Helper()
	engine, err := oncekey.Open(teststore.New(t), &oncekey.Options{SegmentBytes: teststore.SegmentBytes()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { engine.Close() })
	return engine
}

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// complete ends an operation of parts with a response.
func complete(t *testing.T, engine *oncekey.Engine, key string, parts oncekey.Fingerprint, response []byte) {
	t.Helper()
	if _, err := claim(t, engine, key, parts).Complete(context.Background(), response); err != nil {
		t.Fatal(err)
	}
}

func claim(t *testing.T, engine *oncekey.Engine, key string, parts oncekey.Fingerprint) *oncekey.Claim {
	t.Helper()
	found, err := engine.Begin(context.Background(), oncekey.Key{Key: key}, parts)
	claim, claimed := found.(*oncekey.Claim)
	if err != nil || !claimed {
		t.Fatalf("%T %v", found, err)
	}
	return claim
}

func TestFingerprintsAreThoseOfTheRustLayer(t *testing.T) {
	var vectors []struct {
		Name, Method, Target, Authority, Body string
		Headers, Parts                        []pair
		Fingerprinted                         []string
	}
	load(t, "fingerprints.json", &vectors)
	if len(vectors) == 0 {
		t.Fatal("no vectors")
	}
	engine := openEngine(t)
	first, err := NewResponse(http.StatusCreated, nil, []byte("first")).Encode()
	if err != nil {
		t.Fatal(err)
	}
	for i, vector := range vectors {
		parts := oncekey.Fingerprint{}
		for _, part := range vector.Parts {
			parts = parts.PartBytes(part[0], unhex(t, part[1]))
		}
		complete(t, engine, fmt.Sprint(i), parts, first)
		middleware := New(engine, Options{FingerprintHeaders: vector.Fingerprinted, Logger: quiet()})
		request := httptest.NewRequest(vector.Method, vector.Target, bytes.NewReader(unhex(t, vector.Body)))
		for _, pair := range vector.Headers {
			request.Header.Add(pair[0], pair[1])
		}
		// The server does the same: it keeps the authority in Host alone, and prefers that of the target.
		if request.URL.Host == "" {
			request.Host = vector.Authority
			if request.Host == "" {
				request.Host = request.Header.Get("Host")
			}
		}
		request.Header.Del("Host")
		request.Header.Set("X-Idempotency-Key", fmt.Sprint(i))
		answer := httptest.NewRecorder()
		middleware.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
			t.Errorf("%s: the handler ran", vector.Name)
		})).ServeHTTP(answer, request)
		if answer.Code != http.StatusCreated || answer.Body.String() != "first" {
			t.Errorf("%s: %d %s", vector.Name, answer.Code, answer.Body)
		}
	}
}

func TestRefusalsAreThoseOfTheRustLayer(t *testing.T) {
	var vectors []refusalVector
	load(t, "refusals.json", &vectors)
	if len(vectors) == 0 {
		t.Fatal("no vectors")
	}
	for _, vector := range vectors {
		if vector.StartsHandlers != nil {
			continue // This middleware calls its handler; nothing else starts it.
		}
		if len(vector.Answers) == 0 {
			t.Errorf("%s: no answers", vector.Name)
		}
		for form := range vector.Answers {
			vector.check(t, form)
		}
	}
}

type refusalVector struct {
	Name, Store, Body, Scope    string
	Keys                        []string
	Required                    bool
	MaxRequestBody, MaxBuffered int64
	Stalls                      bool
	StartsHandlers              *bool
	Answers                     map[string]struct {
		Status  int
		Headers map[string]string
		Body    string
	}
}

// prepare brings the operation k into the state that the vector asks for, until the test ends.
func (v *refusalVector) prepare(t *testing.T, engine *oncekey.Engine) {
	t.Helper()
	parts := oncekey.Fingerprint{}.Part("method", "POST").Part("target", "/orders").Part("body", "2 apples")
	switch v.Store {
	case "new":
	case "in flight":
		held := claim(t, engine, "k", parts)
		t.Cleanup(func() { held.Close() })
	case "completed":
		complete(t, engine, "k", parts, []byte("not a response"))
	case "completed without response":
		if err := claim(t, engine, "k", parts).CompleteWithoutResponse(context.Background()); err != nil {
			t.Fatal(err)
		}
	case "orphaned":
		claim(t, engine, "k", parts).Close()
	case "closed":
		engine.Close()
	default:
		t.Fatal(v.Store)
	}
}

// The advice of 100 to 500 ms, which grows with the age of the claim.
var (
	retryAfterMs = regexp.MustCompile(`"retryAfterMs":[1-5]\d\d\b`)
	pushbackMs   = regexp.MustCompile(`^[1-5]\d\d$`)
)

func (v *refusalVector) check(t *testing.T, form string) {
	engine := openEngine(t)
	v.prepare(t, engine)
	contract, known := map[string]Contract{"default": {}, "ietf": IETF(), "stripe": Stripe(), "grpc": {}}[form]
	if !known {
		t.Fatalf("%s: no form %s", v.Name, form)
	}
	middleware := New(engine, Options{
		Contract:           contract,
		Required:           v.Required,
		MaxRequestBody:     v.MaxRequestBody,
		MaxBuffered:        v.MaxBuffered,
		FingerprintHeaders: []string{},
		Scope:              func(*http.Request) string { return v.Scope },
		Logger:             quiet(),
	})
	var body io.Reader = strings.NewReader(v.Body)
	if v.Stalls {
		// As the server ends a read whose deadline is over.
		body = io.MultiReader(body, iotest.ErrReader(os.ErrDeadlineExceeded))
	}
	request := httptest.NewRequest("POST", "/orders", body)
	request.Host = ""
	request.Header["X-Idempotency-Key"] = v.Keys
	if form == "grpc" {
		request.Header.Set("Content-Type", "application/grpc+proto")
	}
	recorder := httptest.NewRecorder()
	middleware.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		t.Errorf("%s: %s: the handler ran", form, v.Name)
	})).ServeHTTP(recorder, request)
	headers := map[string]string{}
	for name, values := range recorder.Header() {
		// The headers of the connection, which a server in Rust sets later.
		if name != "Content-Length" && name != "Connection" {
			headers[strings.ToLower(name)] = strings.Join(values, ", ")
		}
	}
	if pushbackMs.MatchString(headers["grpc-retry-pushback-ms"]) {
		headers["grpc-retry-pushback-ms"] = "100"
	}
	answer := v.Answers[form]
	said := retryAfterMs.ReplaceAllString(recorder.Body.String(), `"retryAfterMs":100`)
	if recorder.Code != answer.Status || said != answer.Body || !reflect.DeepEqual(headers, answer.Headers) {
		t.Errorf("%s: %s: %d %v\n%s", form, v.Name, recorder.Code, headers, recorder.Body)
	}
}
