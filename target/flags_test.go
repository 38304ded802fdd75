package target

import (
	"errors"
	"slices"
	"testing"
)

func TestPrintFlags(t *testing.T) {
	constant := func(name string) (uint64, bool) {
		n, ok := map[string]uint64{"___GFP_IO_BIT": 6}[name]
		return n, ok
	}
	for _, tt := range []struct {
		print string
		want  []Flag
		bad   bool
	}{
		{`"%s", __print_flags(REC->f, "|", {( unsigned long)(((( gfp_t)(((((1UL))) << (10))|((((1UL))) << (11)))) | (( gfp_t)0)) & ~(( gfp_t)0x400u)), "A_B"}, { 0x40u | 1, "C" }) : "none"`, []Flag{{"A_B", 1 << 11}, {"C", 0x41}}, false},
		{`__print_flags(REC->f, "|", {( unsigned long)(( gfp_t)((((1UL))) << (___GFP_IO_BIT))), "IO"})`, []Flag{{"IO", 64}}, false},
		{`__print_flags(REC->f, "|", { 1, "X"}, { 0, ((void *)0) } ) : "none", {2, "Y"}`, []Flag{{"X", 1}}, false},
		{`__print_flags(REC->f, "|")`, nil, false},
		{`__print_flags(REC->f, "|", {1 <<, "X"})`, nil, true},
		{`__print_flags(REC->f, "|", {(1, "X"})`, nil, true},
		{`__print_flags(REC->f, "|", {UNKNOWN, "X"})`, nil, true},
		{`__print_flags(REC->f, "|", {1 2, "X"})`, nil, true},
		{`__print_flags(REC->f, "|", {1, X})`, nil, true},
	} {
		got, err := printFlags(&Format{Print: tt.print}, "f", constant)
		if (err != nil) != tt.bad || !slices.Equal(got, tt.want) {
			t.Errorf("%s: %v, %v; want %v", tt.print, got, err, tt.want)
		}
	}
	if _, err := printFlags(&Format{Print: "REC->f"}, "f", constant); !errors.Is(err, ErrNotFound) {
		t.Errorf("a format without flags gives %v", err)
	}
}
