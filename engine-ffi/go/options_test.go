package oncekey_test

import (
	"errors"
	"math"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	oncekey "github.com/oncekey/oncekey/engine-ffi/go"
	"github.com/oncekey/oncekey/engine-ffi/go/internal/teststore"
)

var upper = regexp.MustCompile("([a-z])([A-Z])")

// Every option that is a number or a time, at its ends: what it is set to works, or is refused by its name with the
// value and the bound.
func TestEachOptionAtItsEndsWorksOrIsRefusedByItsName(t *testing.T) {
	ofOptions := reflect.TypeFor[oncekey.Options]()
	opened, refused := 0, 0
	for i := range ofOptions.NumField() {
		field := ofOptions.Field(i)
		values := []int64{-1, 1, math.MaxInt64}
		switch {
		case field.Type == reflect.TypeFor[time.Duration]():
			values = append(values, int64(time.Millisecond))
		case field.Type.Kind() != reflect.Int && field.Type.Kind() != reflect.Int64:
			continue
		}
		for _, value := range values {
			var options oncekey.Options
			of := reflect.ValueOf(&options).Elem().Field(i)
			of.SetInt(value)
			engine, err := oncekey.Open(teststore.New(t), &options)
			if err == nil {
				opened++
				ok(t, engine.Close())
				continue
			}
			refused++
			// The library names the option as C does.
			said, snake := err.Error(), strings.ToLower(upper.ReplaceAllString(field.Name, "${1}_$2"))
			named := strings.Contains(said, field.Name) || strings.Contains(said, snake)
			bound := strings.Contains(said, "at least") || strings.Contains(said, "at most") ||
				strings.Contains(said, "a multiple") || strings.Contains(said, "is not an option")
			if !errors.Is(err, oncekey.ErrInvalidInput) || !named || !bound {
				t.Errorf("%s %v: %v", field.Name, of, err)
			}
		}
	}
	if opened < 20 || refused < 30 {
		t.Errorf("%d opened, %d refused", opened, refused)
	}
}
