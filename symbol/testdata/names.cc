#include <string>
#include <vector>

namespace outer {
namespace inner {
struct Base {
	int base_member;
	virtual ~Base() {}
};
class Widget : public Base {
      public:
	long own;
	static int shared;
	int area(int w, const std::string &name) const;
	template <typename T> T twice(T x) { return x + x; }
};
int Widget::shared = 4;
__attribute__((noinline)) int Widget::area(int w, const std::string &name) const { return w * (int)own + (int)name.size(); }
} // namespace inner
__attribute__((noinline)) int area(double d) { return (int)d; }
__attribute__((noinline)) int area(char *p, int n) { return p[n]; }
} // namespace outer

int main(int argc, char **argv)
{
	outer::inner::Widget w;
	w.own = argc;
	return w.area(2, argv[0]) + w.twice(argc) + (int)w.twice(2.5) + outer::area(1.5) + outer::area(argv[0], 0) > 100000;
}
