from hypothesis import settings

# The same examples in every run: a change that breaks a property breaks it for everyone.
settings.register_profile("book", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("book")


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="run what takes minutes and gigabytes")
