// Package teststore gives tests empty stores: directories, or with ONCEKEY_TEST_STORE=postgres databases of
// the server that ONCEKEY_TEST_SERVER names. engine-ffi/test.sh starts one.
package teststore

import (
	"fmt"
	"os"
	"os/exec"
	"sync/atomic"
	"testing"
)

// Shared says whether the stores are databases.
func Shared() bool { return os.Getenv("ONCEKEY_TEST_STORE") == "postgres" }

// OfDirectories skips a test that is about directories when the stores are databases.
func OfDirectories(t testing.TB) {
	t.Helper()
	if Shared() {
		t.Skip("LEFT OUT: it is about the files of a directory")
	}
}

// SegmentBytes is a small size for segments of the journal; 0 for databases, which have none.
func SegmentBytes() int64 {
	if Shared() {
		return 0
	}
	return 4 << 20
}

var databases atomic.Uint64

// New returns the directory or URL of an empty store.
func New(t testing.TB) string {
	t.Helper()
	if !Shared() {
		return t.TempDir()
	}
	server := os.Getenv("ONCEKEY_TEST_SERVER")
	name := fmt.Sprintf("go_%d_%d", os.Getpid(), databases.Add(1))
	psql := exec.Command(os.Getenv("ONCEKEY_TEST_PSQL"), "-X", "-q", "-c", "CREATE DATABASE "+name, server+"/postgres")
	if said, err := psql.CombinedOutput(); err != nil {
		t.Fatalf("a database: %v: %s", err, said)
	}
	return server + "/" + name
}
