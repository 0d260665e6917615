package oncekey_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	oncekey "github.com/oncekey/oncekey/engine-ffi/go"
	"github.com/oncekey/oncekey/engine-ffi/go/internal/teststore"
)

// socketPath is a path that is short enough for a socket.
func socketPath(t *testing.T) string {
	t.Helper()
	directory, err := os.MkdirTemp("", "oncekey")
	ok(t, err)
	t.Cleanup(func() { os.RemoveAll(directory) })
	return filepath.Join(directory, "control.sock")
}

// asked is the status and the body of a request on a control socket.
func asked(t *testing.T, path, method, request string) (int, string) {
	t.Helper()
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}
	defer transport.CloseIdleConnections()
	asking, err := http.NewRequest(method, "http://localhost/api/v1/"+request, nil)
	ok(t, err)
	asking.Header.Set("Content-Type", "application/json")
	answer, err := (&http.Client{Transport: transport}).Do(asking)
	ok(t, err)
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	ok(t, err)
	return answer.StatusCode, string(body)
}

func says(t *testing.T, path, method, request string, status int, word string) {
	t.Helper()
	if got, body := asked(t, path, method, request); got != status || !strings.Contains(body, word) {
		t.Fatalf("%s: %d %s", request, got, body)
	}
}

// command runs the program oncekey, and returns its exit code and its output.
func command(t *testing.T, program string, arguments ...string) (int, string) {
	t.Helper()
	command := exec.Command(program, arguments...)
	var said bytes.Buffer
	command.Stderr = &said
	printed, err := command.Output()
	if err != nil && command.ProcessState == nil {
		t.Fatal(err)
	}
	return command.ProcessState.ExitCode(), string(printed) + said.String()
}

func TestOperatorsAskAProcessByTheDirectoryOfItsStore(t *testing.T) {
	teststore.OfDirectories(t)
	store := t.TempDir()
	engine := openAt(t, store)
	held := begin[*oncekey.Claim](t, engine, "held", "b")
	begin[*oncekey.Claim](t, engine, "lost", "b").Close()
	// A claim is dropped in the background, before the next begin of its key.
	begin[*oncekey.Orphan](t, engine, "lost", "b").Close()
	ok(t, engine.ControlSocket(nil))

	note, err := os.ReadFile(filepath.Join(store, "LOCK"))
	ok(t, err)
	var pid int
	var place string
	if _, err := fmt.Sscanf(string(note), "pid %d\ncontrol unix:%s\n", &pid, &place); err != nil || pid != os.Getpid() {
		t.Fatalf("%s: %v", note, err)
	}
	says(t, place, "GET", "info", 200, `"role":"operator"`)
	says(t, place, "GET", "stats", 200, `"inFlight":1`)
	says(t, place, "GET", "orphans", 200, `"total":1`)
	says(t, place, "GET", "keys?scope=scope&key=held", 200, `"state":"inFlight"`)
	is(t, engine.ControlSocket(nil), oncekey.ErrInvalidInput)

	// The program itself, if it was built.
	if program := os.Getenv("ONCEKEY_PROGRAM"); program != "" {
		code, printed := command(t, program, "stats", "--json", "--store", store)
		var stats struct {
			Owner struct{ Pid int }
		}
		ok(t, json.Unmarshal([]byte(printed), &stats))
		if code != 0 || stats.Owner.Pid != os.Getpid() {
			t.Fatal(code, printed)
		}
		if code, printed := command(t, program, "ctl", "reopen", "--store", store); code != 0 {
			t.Fatal(code, printed)
		}
		// The engine was reopened: its claim is an orphan that its owner may still complete.
		if code, printed := command(t, program, "orphans", "--store", store); code != 0 || !strings.Contains(printed, "held") {
			t.Fatal(code, printed)
		}
	} else {
		t.Log("LEFT OUT: the program oncekey, which ONCEKEY_PROGRAM names")
	}
	if _, err := held.Complete(ctx, []byte("201 created")); err != nil {
		t.Fatal(err)
	}
	ok(t, engine.Close())
	if _, err := os.Lstat(place); !os.IsNotExist(err) {
		t.Fatal("the socket is left", err)
	}
	if note, err := os.ReadFile(filepath.Join(store, "LOCK")); err != nil || len(note) != 0 {
		t.Fatalf("%s, %v", note, err)
	}
	is(t, engine.ControlSocket(nil), oncekey.ErrClosed)
	if program := os.Getenv("ONCEKEY_PROGRAM"); program != "" {
		if code, printed := command(t, program, "stats", "--store", store); code != 0 || !strings.Contains(printed, "no process has it open") {
			t.Fatal(code, printed)
		}
	}
}

func TestAControlSocketTakesOptions(t *testing.T) {
	engine := open(t)
	path := socketPath(t)
	if _, err := begin[*oncekey.Claim](t, engine, "shown", "b").Complete(ctx, []byte("as it is")); err != nil {
		t.Fatal(err)
	}
	is(t, engine.ControlSocket(&oncekey.ControlOptions{Path: "/nowhere/at/all"}), oncekey.ErrIO)
	if teststore.Shared() {
		is(t, engine.ControlSocket(nil), oncekey.ErrInvalidInput)
	}
	options := oncekey.ControlOptions{
		Path: path, Backups: path + ".backups", AuditLog: path + ".log", ShowResponses: true,
	}
	ok(t, engine.ControlSocket(&options))
	says(t, path, "GET", "keys/response?scope=scope&key=shown", 200, "as it is")
	says(t, path, "GET", "backups", 200, `"backups":[]`)
	says(t, path, "POST", "sweep", 200, "swept")
	if log, err := os.ReadFile(path + ".log"); err != nil || !strings.Contains(string(log), "sweep") {
		t.Fatalf("%s, %v", log, err)
	}
	ok(t, engine.Close())

	engine = open(t)
	ok(t, engine.ControlSocket(&oncekey.ControlOptions{Path: path, ReadOnly: true}))
	says(t, path, "POST", "sweep", 403, "read")
}
