package oncekey_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	oncekey "github.com/oncekey/oncekey/engine-ffi/go"
)

// The quick start of docs/c-api.md; the test compares them.
func quickStart(ctx context.Context) error {
	engine, err := oncekey.Open("./idempotency", nil)
	if err != nil {
		return err
	}
	defer engine.Close()

	request := oncekey.Fingerprint{}.Part("method", "POST").Part("body", "2 apples")
	begin, err := engine.Begin(ctx, oncekey.Key{Scope: "tenant-7", Key: "order-4711"}, request)
	if err != nil {
		return err
	}
	switch begin := begin.(type) {
	case *oncekey.Claim: // execute here, then:
		_, err = begin.Complete(ctx, []byte("201 created"))
	case *oncekey.Recorded:
		fmt.Printf("give this again: %s\n", begin.Response)
	case *oncekey.InFlight:
		fmt.Println("being executed, retry in", begin.RetryAfter)
	case *oncekey.Mismatch:
		fmt.Println("another request:", begin.Parts, "differ")
	case *oncekey.Orphan:
		fmt.Println("attempt", begin.Attempt, "died, outcome unknown")
	}
	return err
}

func TestTheQuickStartRunsAndIsShort(t *testing.T) {
	page, err := os.ReadFile("../../docs/c-api.md")
	ok(t, err)
	source, err := os.ReadFile("quickstart_test.go")
	ok(t, err)
	_, code, _ := strings.Cut(string(page), "<!-- quick start: Go -->\n```go\n")
	code, _, _ = strings.Cut(code, "```")
	_, body, _ := strings.Cut(string(source), "func quickStart(ctx context.Context) error {\n")
	body, _, _ = strings.Cut(body, "\n}\n")
	body = strings.ReplaceAll("\n"+body, "\n\t", "\n")[1:] + "\n"
	if body != code {
		t.Errorf("the page says:\n%s\nand the test:\n%s", code, body)
	}
	if lines := strings.Count(code, "\n"); lines > 25 {
		t.Errorf("%d lines", lines)
	}
	t.Chdir(t.TempDir())
	for range 2 {
		ok(t, quickStart(ctx))
	}
}
