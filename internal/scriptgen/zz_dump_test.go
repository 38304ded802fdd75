package scriptgen
import ("testing";"fmt";"os";"strconv")
func TestDump(t *testing.T){ n,_:=strconv.Atoi(os.Getenv("SEED")); s,w:=Computed(uint64(n)); fmt.Print(s); os.WriteFile("/tmp/want",[]byte(w),0o644); os.WriteFile("/tmp/s.bt",[]byte(s),0o644) }
