package hook

import "testing"

func TestMerged(t *testing.T) {
	for text, want := range map[string]string{
		"uprobe:libpthread:pthread_create":                                  "uprobe:libc:pthread_create",
		"uretprobe:pthread:pthread_create":                                  "uretprobe:libc:pthread_create",
		"uprobe:/lib/x86_64-linux-gnu/libpthread.so.0:pthread_mutex_lock":   "uprobe:libc:pthread_mutex_lock",
		"usdt:/lib/x86_64-linux-gnu/libpthread-2.31.so:pthread:cond_signal": "",
		"uprobe:libc:malloc":                                                "",
		"uprobe:/bin/dl:main":                                               "",
		"kprobe:pthread":                                                    "",
		"uprobe:libdlx:dlopen":                                              "",
	} {
		p, err := Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		got, ok := p.Merged()
		if ok != (want != "") || ok && got.String() != want {
			t.Errorf("%s: %s, %v, want %q", text, got, ok, want)
		}
	}
}
