package runner

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Strftime formats a time by the conversions of the C library's strftime(3) in
// the C locale, and %f, which is microseconds. The flags _ - 0 ^ # and a width
// are understood as in glibc, the modifiers E and O change nothing.
func Strftime(format string, t time.Time) string {
	return string(appendTime(nil, format, t))
}

func appendTime(dst []byte, format string, t time.Time) []byte {
	for i := 0; i < len(format); i++ {
		if format[i] != '%' {
			dst = append(dst, format[i])
			continue
		}
		start := i
		i++
		var flag byte
		upper, swap := false, false
		for ; i < len(format) && strings.IndexByte("_-0^#", format[i]) >= 0; i++ {
			switch format[i] {
			case '^':
				upper = true
			case '#':
				swap = true
			default:
				flag = format[i]
			}
		}
		width := 0
		for ; i < len(format) && format[i] >= '0' && format[i] <= '9'; i++ {
			width = min(width*10+int(format[i]-'0'), 1024)
		}
		if i < len(format) && (format[i] == 'E' || format[i] == 'O') {
			i++
		}
		if i >= len(format) {
			return append(dst, format[start:]...)
		}
		text, fill, digits, ok := timeField(format[i], t)
		if !ok {
			dst = append(dst, format[start:i+1]...)
			continue
		}
		switch flag {
		case '_':
			fill = ' '
		case '0':
			fill = '0'
		case '-':
			digits, width = 0, 0
		}
		if upper || swap && format[i] != 'p' && format[i] != 'Z' {
			text = strings.ToUpper(text)
		} else if swap {
			text = strings.ToLower(text)
		}
		for n := max(digits, width) - len(text); n > 0; n-- {
			dst = append(dst, fill)
		}
		dst = append(dst, text...)
	}
	return dst
}

// timeField returns one conversion: its text, and with what and how wide it is
// filled.
func timeField(c byte, t time.Time) (text string, fill byte, width int, ok bool) {
	number := func(n, width int, fill byte) (string, byte, int, bool) {
		return strconv.Itoa(n), fill, width, true
	}
	plain := func(s string) (string, byte, int, bool) { return s, ' ', 0, true }
	sub := func(format string) (string, byte, int, bool) { return plain(Strftime(format, t)) }
	hour12 := func() int { return (t.Hour()+11)%12 + 1 }
	switch c {
	case 'a':
		return plain(t.Weekday().String()[:3])
	case 'A':
		return plain(t.Weekday().String())
	case 'b', 'h':
		return plain(t.Month().String()[:3])
	case 'B':
		return plain(t.Month().String())
	case 'c':
		return sub("%a %b %e %H:%M:%S %Y")
	case 'C':
		return number(t.Year()/100, 2, '0')
	case 'd':
		return number(t.Day(), 2, '0')
	case 'D', 'x':
		return sub("%m/%d/%y")
	case 'e':
		return number(t.Day(), 2, ' ')
	case 'f':
		return number(t.Nanosecond()/1000, 6, '0')
	case 'F':
		return sub("%Y-%m-%d")
	case 'g':
		y, _ := t.ISOWeek()
		return number(y%100, 2, '0')
	case 'G':
		y, _ := t.ISOWeek()
		return number(y, 4, '0')
	case 'H':
		return number(t.Hour(), 2, '0')
	case 'I':
		return number(hour12(), 2, '0')
	case 'j':
		return number(t.YearDay(), 3, '0')
	case 'k':
		return number(t.Hour(), 2, ' ')
	case 'l':
		return number(hour12(), 2, ' ')
	case 'm':
		return number(int(t.Month()), 2, '0')
	case 'M':
		return number(t.Minute(), 2, '0')
	case 'n':
		return plain("\n")
	case 'p':
		return plain(t.Format("PM"))
	case 'P':
		return plain(t.Format("pm"))
	case 'r':
		return sub("%I:%M:%S %p")
	case 'R':
		return sub("%H:%M")
	case 's':
		return plain(strconv.FormatInt(t.Unix(), 10))
	case 'S':
		return number(t.Second(), 2, '0')
	case 't':
		return plain("\t")
	case 'T', 'X':
		return sub("%H:%M:%S")
	case 'u':
		return number((int(t.Weekday())+6)%7+1, 1, '0')
	case 'U':
		return number((t.YearDay()+6-int(t.Weekday()))/7, 2, '0')
	case 'V':
		_, w := t.ISOWeek()
		return number(w, 2, '0')
	case 'w':
		return number(int(t.Weekday()), 1, '0')
	case 'W':
		return number((t.YearDay()+6-(int(t.Weekday())+6)%7)/7, 2, '0')
	case 'y':
		return number(t.Year()%100, 2, '0')
	case 'Y':
		return plain(fmt.Sprint(t.Year()))
	case 'z':
		return plain(t.Format("-0700"))
	case 'Z':
		return plain(t.Format("MST"))
	case '%':
		return plain("%")
	}
	return "", 0, 0, false
}
