package oncekeyhttp

import (
	"encoding/binary"
	"net/http"
	"strings"
	"testing"
)

func message(text string) string {
	return string(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(text)))) + text
}

// refusedCall checks a call that was refused by a status of gRPC.
func refusedCall(t *testing.T, got answer, status, code string) {
	t.Helper()
	if got.status != http.StatusOK || got.body != "" || got.header.Get("Content-Type") != "application/grpc+proto" ||
		got.header.Get("Grpc-Status") != status || !strings.HasPrefix(got.header.Get("Grpc-Message"), code+": ") {
		t.Fatalf("not %s %s: %+v", status, code, got)
	}
}

func TestAUnaryCallIsReplayedAndAStreamIsNot(t *testing.T) {
	for _, c := range []struct {
		name, body string
		stored     bool
	}{{"unary", message("pong"), true}, {"stream", message("pong") + message("pong"), false}} {
		s := serve(t, Options{}, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/grpc+proto")
			w.Header().Set("Trailer", "Grpc-Status")
			w.WriteHeader(http.StatusOK)
			for i := range len(c.body) {
				w.Write([]byte{c.body[i]})
			}
			w.Header().Set("Grpc-Status", "0")
		})
		call := func(body string) answer { return s.post("k", body, "Content-Type", "application/grpc+proto") }
		if first := call("ping"); first.body != c.body {
			t.Fatalf("%s: %+v", c.name, first)
		}
		again := call("ping")
		if c.stored && again.body != c.body {
			t.Fatalf("%s: %+v", c.name, again)
		}
		if !c.stored {
			refusedCall(t, again, "9", notStoredCode)
		}
		refusedCall(t, call("another"), "6", mismatchCode)
		s.ran(1)
	}
}

func TestACallIsToldOfALockedKey(t *testing.T) {
	running, finish := make(chan bool), make(chan bool)
	s := serve(t, Options{}, func(http.ResponseWriter, *http.Request) {
		running <- true
		<-finish
	})
	done := make(chan answer)
	call := func() answer { return s.post("k", "ping", "Content-Type", "application/grpc+proto") }
	go func() { done <- call() }()
	<-running
	locked := call()
	finish <- true
	<-done
	refusedCall(t, locked, "10", lockedCode)
	if locked.header.Get("Grpc-Retry-Pushback-Ms") == "" || locked.header.Get("Retry-After") != "" {
		t.Fatal(locked.header)
	}
}

func TestTheStatusOfACallDecidesWhetherItIsStored(t *testing.T) {
	for status, runs := range map[string]int32{"16": 2, "8": 2, "14": 1, "0": 1} {
		s := serve(t, Options{}, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/grpc")
			w.Header().Set("Grpc-Status", status)
		})
		for range 2 {
			if got := s.post("k", "ping", "Content-Type", "application/grpc"); got.header.Get("Grpc-Status") != status {
				t.Fatalf("%+v", got)
			}
		}
		s.ran(runs)
	}
}

func TestContentTypesOfGRPC(t *testing.T) {
	for kind, expected := range map[string]bool{
		"application/grpc": true, "application/grpc+proto": true, "Application/gRPC; charset=x": true,
		"application/grpc-web+proto": true, "application/grpcish": false, "application/json": false, "": false,
	} {
		if isGRPC(http.Header{"Content-Type": {kind}}) != expected {
			t.Error(kind)
		}
	}
	if encoded := grpcMessage("100 % sure\n\u00e9"); encoded != "100 %25 sure%0A%C3%A9" {
		t.Error(encoded)
	}
}

func TestDownstreamKeysAreThoseOfTheRustLayer(t *testing.T) {
	var vectors []struct{ Scope, Key, Step, Derived string }
	load(t, "downstream_keys.json", &vectors)
	if len(vectors) == 0 {
		t.Fatal("no vectors")
	}
	for _, vector := range vectors {
		attempt := Attempt{}
		attempt.Key.Scope, attempt.Key.Key = vector.Scope, vector.Key
		if derived := attempt.DownstreamKey(vector.Step); derived != vector.Derived {
			t.Errorf("%q %q, a step of %d bytes: %s", vector.Scope, vector.Key, len(vector.Step), derived)
		}
	}
}
