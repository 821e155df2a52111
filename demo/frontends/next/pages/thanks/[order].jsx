export default function Thanks() {
	return <h1>Thank you</h1>;
}

// Not made ahead: the address of the API is read when a page is asked for.
export const getServerSideProps = () => ({ props: {} });
